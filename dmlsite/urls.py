from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from dmlsite import dashboard, views

urlpatterns = [
    path("", views.home, name="home"),
    path("admin/", admin.site.admin_view(dashboard.index)),
    path("admin/", admin.site.urls),
    path("accounts/", include("accounts.urls")),
    path("tickets/", include("tickets.urls")),
    path("provider/", include("providers.urls")),
    path("", include("training.urls")),
    path("api/", include("dmlsite.api")),
]
if settings.DEVELOPMENT:
    urlpatterns.append(path("dev/", include("dmlsite.dev")))

handler404 = "dmlsite.views.not_found"
