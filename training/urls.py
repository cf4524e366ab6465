from django.urls import path

from training import views

app_name = "training"
urlpatterns = [
    path("providers/<str:name>/", views.provider, name="provider"),
    path("provider/work/<uuid:ticket>/", views.work, name="work"),
    path("tickets/files/<str:token>/<str:sha256>", views.blob, name="blob"),
    path("tickets/check/", views.check, name="check"),
    path("tickets/<uuid:pk>/erase/", views.erase, name="erase"),
    path("tickets/<uuid:pk>/try/", views.ask_trial, name="ask_trial"),
    path("tickets/<uuid:pk>/try/<str:name>/", views.see_trial, name="trial"),
    path("tickets/<uuid:pk>/progress/", views.progress, name="progress"),
]
