from django import forms

from contracts.chain import ChainError, to_checksum
from dmlsite.errors import Invalid
from providers import actions


class JoinForm(forms.Form):
    user_name = forms.CharField(
        label="User name",
        min_length=3,
        max_length=30,
        help_text="3 to 30 letters, digits, - or _. Customers see it on their tickets.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def clean_user_name(self) -> str:
        name: str = self.cleaned_data["user_name"]
        try:
            actions.check_user_name(name)
        except Invalid as error:
            raise forms.ValidationError(str(error)) from None
        return name


class KeyForm(forms.Form):
    name = forms.CharField(label="Name of the key", max_length=60, initial="worker", help_text="To tell them apart.")


class AnswerForm(forms.Form):
    text = forms.CharField(
        label="Your answer",
        max_length=4000,
        widget=forms.Textarea(attrs={"rows": 5}),
        help_text="The guardian, who can lift the accusation, reads it beside the evidence. It stays with the case.",
    )


class WalletForm(forms.Form):
    """The address a wallet gave to the page."""

    address = forms.CharField(max_length=42)

    def clean_address(self) -> str:
        try:
            return str(to_checksum(self.cleaned_data["address"]))
        except ChainError:
            raise forms.ValidationError("This is not a wallet's address.") from None
