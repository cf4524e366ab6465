from django.urls import path

from providers import views

app_name = "providers"
urlpatterns = [
    path("", views.home, name="home"),
    path("name/", views.name, name="name"),
    path("live/", views.live, name="live"),
    path("earnings.csv", views.download, name="earnings"),
    path("deposit/", views.deposit, name="deposit"),
    path("leave/", views.leave, name="leave"),
    path("withdraw/", views.withdraw, name="withdraw"),
    path("credit/", views.credit, name="credit"),
    path("cases/<uuid:pk>/answer/", views.answer, name="answer"),
    path("keys/", views.create_key, name="key_create"),
    path("keys/<int:pk>/revoke/", views.revoke_key, name="key_revoke"),
]
