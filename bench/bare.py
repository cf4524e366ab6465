"""A Django site with one view that does nothing, served as ours is: what a page costs at the least (bench/pages.py).

python -m bench.bare PORT
"""

import sys

import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path


def nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nothing")


urlpatterns = [path("", nothing)]


def main(port: int) -> None:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["localhost"], SECRET_KEY="bench")
    uvicorn.run(get_asgi_application(), host="127.0.0.1", port=port, lifespan="off", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
