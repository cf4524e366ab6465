"""Mails: written as text, sent with the same words as HTML."""

import re
from textwrap import dedent

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe


def message(subject: str, text: str, to: str) -> EmailMultiAlternatives:
    found = EmailMultiAlternatives(subject, text, to=[to])
    found.attach_alternative(as_html(subject, text), "text/html")
    return found


def as_html(subject: str, text: str) -> str:
    """A mail's text as a page: paragraphs, what is indented as it stands, and our own addresses as links."""
    blocks = re.split(r"\n\s*\n", text.strip("\n"))
    words = format_html_join("\n", "{}", ((_block(block),) for block in blocks))
    return render_to_string("mail/mail.html", {"subject": subject, "words": words})


def _block(block: str) -> SafeString:
    lines = block.splitlines()
    if all(line.startswith("    ") for line in lines):
        return format_html("<pre>{}</pre>", dedent(block))
    if len(lines) == 2 and _is_link(lines[1]) and not lines[0].endswith(":"):
        return format_html('<p><a href="{}">{}</a></p>', lines[1], lines[0])
    shown = ((format_html('<a href="{0}">{0}</a>', line) if _is_link(line) else line,) for line in lines)
    return format_html("<p>{}</p>", format_html_join(mark_safe("<br>\n"), "{}", shown))


def _is_link(line: str) -> bool:
    """Only what we wrote ourselves: a name or a reason may look like an address, and is none."""
    return line.startswith(f"{settings.SITE_URL}/") and " " not in line
