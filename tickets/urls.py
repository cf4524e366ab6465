from django.urls import path

from tickets import uploads, views

app_name = "tickets"
urlpatterns = [
    path("", views.tickets, name="list"),
    path("order/", views.order, name="order"),
    path("model/", views.own_model, name="own_model"),
    path("price/", views.price, name="price"),
    path("files/<str:token>", views.artifact, name="artifact"),
    path("<uuid:pk>/files.zip", views.everything, name="everything"),
    path("<uuid:pk>/", views.ticket, name="ticket"),
    path("<uuid:pk>/pay/", views.pay, name="pay"),
    path("<uuid:pk>/upload/", views.upload, name="upload"),
    path("<uuid:pk>/uploads/", uploads.uploads, name="uploads"),
    path("uploads/<uuid:pk>/", uploads.part, name="part"),
    path("<uuid:pk>/cancel/", views.cancel, name="cancel"),
]
