"""What Django's own reports of errors leave out."""

import re
from typing import Any

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter


class Filter(SafeExceptionReporterFilter):
    """Django's, and fields whose name says that they are secret in whatever form came: views of the API can't mark theirs."""

    secret = re.compile("pass|secret|token|key|code|signature|confirm", re.IGNORECASE)

    def get_post_parameters(self, request: HttpRequest | None) -> Any:
        found = super().get_post_parameters(request).copy()
        for name in found:
            if self.secret.search(name):
                found[name] = self.cleansed_substitute
        return found
