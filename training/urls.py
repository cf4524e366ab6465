from django.urls import path

from training import views

app_name = "training"
urlpatterns = [
    path("tickets/files/<str:token>/<str:sha256>", views.blob, name="blob"),
    path("tickets/check/", views.check, name="check"),
    path("tickets/<uuid:pk>/progress/", views.progress, name="progress"),
]
