from django.urls import path

from training import blobs, views

app_name = "training"
urlpatterns = [
    path("worker/blobs/<str:sha256>", blobs.serve, name="blob"),
    path("tickets/check/", views.check, name="check"),
    path("tickets/<uuid:pk>/progress/", views.progress, name="progress"),
]
