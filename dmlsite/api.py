"""The REST API's addresses. Each app serves its own part."""

from typing import NoReturn

from django.urls import include, path, re_path
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.views import APIView

from dmlsite.errors import Missing
from dmlsite.limits import throttle


@extend_schema(exclude=True)
class NoSuchEndpoint(APIView):
    """Below /api/ even a wrong address is answered by a problem document."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def initial(self, request: Request, *args: object, **kwargs: object) -> NoReturn:
        raise Missing("There is no such endpoint.")


class SchemaView(SpectacularAPIView):
    """Made anew each time, for everybody: half a second of a processor."""

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        super().initial(request, *args, **kwargs)
        throttle(request, "schema", "30/m", "ip")


urlpatterns = [
    path("schema/", SchemaView.as_view(authentication_classes=[], permission_classes=[AllowAny])),
    path("v1/", include("accounts.api")),
    path("v1/", include("providers.api")),
    path("v1/", include("tickets.api")),
    path("v1/", include("training.api")),
    re_path("", NoSuchEndpoint.as_view()),
]
