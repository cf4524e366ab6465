from django.contrib.auth import views as auth
from django.urls import path

from accounts import second_factor, views

app_name = "accounts"
urlpatterns = [
    path("", views.account, name="account"),
    path("register/", views.register, name="register"),
    path("login/", views.Login.as_view(), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("password/", views.PasswordChange.as_view(), name="password"),
    path("confirm/", views.ask_confirmation, name="ask_confirmation"),
    path("confirm/<token>/", views.confirm, name="confirm"),
    path("wallet/text/", views.wallet_text, name="wallet_text"),
    path("wallet/login/", views.wallet_login, name="wallet_login"),
    path("wallet/link/", views.wallet_link, name="wallet_link"),
    path("wallet/<int:pk>/unlink/", views.wallet_unlink, name="wallet_unlink"),
    path("keys/", views.create_key, name="key_create"),
    path("keys/<int:pk>/revoke/", views.revoke_key, name="key_revoke"),
    path("data/", views.export, name="export"),
    path("close/", views.close, name="close"),
    path("second-factor/", second_factor.ask, name="second_factor"),
    path("second-factor/setup/", second_factor.setup, name="second_factor_setup"),
    path("second-factor/picture/", second_factor.picture, name="second_factor_picture"),
    path("reset/", views.PasswordReset.as_view(), name="reset"),
    path(
        "reset/sent/",
        auth.PasswordResetDoneView.as_view(template_name="accounts/reset_sent.html"),
        name="reset_sent",
    ),
    path("reset/<uidb64>/<token>/", views.PasswordResetConfirm.as_view(), name="reset_confirm"),
    path(
        "reset/done/",
        auth.PasswordResetCompleteView.as_view(template_name="accounts/reset_complete.html"),
        name="reset_complete",
    ),
]
