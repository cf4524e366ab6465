"""What holds for every page."""

from tests.browser.steps import accessible, light, register


def test_pages_are_light_and_accessible_to_a_visitor_too(platform, page):
    for path in ("/", "/accounts/login/", "/accounts/register/", "/accounts/reset/"):
        light(page, path)
        accessible(page)
        page.set_viewport_size({"width": 360, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
    register(page, "Customer", "browser-visitor@example.org")
    for path in ("/tickets/", "/tickets/order/", "/accounts/", "/provider/"):
        light(page, path)
        accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
