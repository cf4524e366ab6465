"""docs/settings.md names every setting, as it is."""

from scripts import settings_reference


def test_the_page_of_settings_is_up_to_date():
    assert settings_reference.PAGE.read_text() == settings_reference.page(), "make settings-reference"
