"""What a customer says of the columns, in a real browser: it goes from the check's table into the order, and back."""

from playwright.sync_api import expect

from tests.browser.steps import accessible, register

TABLE = "id,zip,patient,y\n" + "".join(f"{n},{10000 + n % 3},p{n // 4},{n % 2}\n" for n in range(80))


def test_columns_are_chosen_in_the_table_of_the_check(platform, page, tmp_path):
    first, other = tmp_path / "t.csv", tmp_path / "other.csv"
    first.write_text(TABLE)
    other.write_text(TABLE.replace("id,", "number,", 1))
    register(page, "Customer", "browser-columns@example.org")
    page.get_by_role("link", name="Order a model").click()
    page.set_input_files("#file", first)
    page.get_by_text("Columns: what each is").click()
    page.get_by_label("What zip is").select_option("category")
    page.get_by_label("Leave out id").check()
    page.get_by_text("More about the data").click()
    page.get_by_label("Group column").fill("patient")
    accessible(page)
    page.get_by_role("button", name="Check again").click()
    expect(page.locator("#facts")).to_contain_text("category of 3")
    expect(page.locator("#facts")).to_contain_text("it says which rows stay together")
    expect(page.get_by_label("Leave out id")).to_be_visible()
    expect(page.get_by_label("Leave out id")).to_be_checked()
    expect(page.locator("#id_leave_out")).to_have_value('["id"]')
    expect(page.locator("#id_kinds")).to_have_value('{"zip":"category"}')

    page.get_by_label("What zip is").select_option("date")
    page.get_by_role("button", name="Check again").click()
    expect(page.locator("#checked")).to_contain_text("'zip' does not hold dates")
    page.get_by_role("button", name="Forget my choice of columns").click()
    expect(page.locator("#facts")).to_contain_text("80 samples")

    page.get_by_text("Columns: what each is").click()
    page.get_by_label("Leave out id").check()
    page.set_input_files("#file", other)
    expect(page.locator("#facts")).to_contain_text("80 samples")
    expect(page.locator("#id_leave_out")).to_have_value("[]")


def test_an_order_that_is_refused_comes_back_with_all_that_was_typed_and_the_file(platform, page, tmp_path):
    data = tmp_path / "t.csv"
    data.write_text(TABLE)
    register(page, "Customer", "browser-forgetful@example.org")
    page.get_by_role("link", name="Order a model").click()
    page.set_input_files("#file", data)
    page.get_by_text("Columns: what each is").click()
    page.get_by_label("Leave out id").check()
    page.get_by_text("More about the data").click()
    page.get_by_label("Group column").fill("patient")
    page.get_by_label("Group column").blur()
    page.locator("#id_seed").evaluate("input => { input.value = '77'; }")
    expect(page.locator("#facts")).to_contain_text("it says which rows stay together")
    page.get_by_role("button", name="Get the quote").click()

    expect(page.locator("#id_payer_error")).to_contain_text("Connect the wallet")
    expect(page.locator("#facts")).to_contain_text("it says which rows stay together")
    assert page.locator("#file").evaluate("input => input.files[0].name") == "t.csv"
    expect(page.locator("#id_leave_out")).to_have_value('["id"]')
    expect(page.get_by_label("Group column")).to_have_value("patient")
    expect(page.locator("#id_seed")).to_have_value("77")
    accessible(page)

    page.get_by_label("Providers get").select_option("A group's rows to one provider")
    page.get_by_label("Group column").fill("")
    page.get_by_label("Group column").blur()
    expect(page.locator("#checked")).to_contain_text("name the column that says which group")
    expect(page.get_by_role("button", name="Get the quote")).to_be_disabled()
    expect(page.locator("#blocked")).to_contain_text("First the file")
    page.get_by_label("Group column").fill("patient")
    page.get_by_label("Group column").blur()
    expect(page.get_by_role("button", name="Get the quote")).to_be_enabled()
    expect(page.locator("#blocked")).to_be_empty()
