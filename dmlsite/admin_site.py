"""The admin's site: its logins are counted with the site's own, and it asks for a second factor."""

from typing import Any, cast

from django.conf import settings
from django.contrib.admin import AdminSite
from django.contrib.admin.apps import AdminConfig
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode


class Site(AdminSite):
    site_header = site_title = "DML"
    index_title = "Moderation and audit"
    enable_nav_sidebar = (
        False  # it is folded out by a script, which moves the whole page; the first page has all of its links
    )

    def has_permission(self, request: HttpRequest) -> bool:
        from accounts import second_factor

        return super().has_permission(request) and not second_factor.missing(request)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        from dmlsite.limits import throttle

        if super().has_permission(request) and not self.has_permission(request):
            back = request.GET.get("next", reverse("admin:index"))
            return redirect(f"{reverse('accounts:second_factor')}?{urlencode({'next': back})}")
        if request.method == "POST":
            throttle(request, "login", settings.LOGIN_RATE, "ip", "post:username")
        return cast(HttpResponse, super().login(request, extra_context))


class Config(AdminConfig):
    default_site = "dmlsite.admin_site.Site"
