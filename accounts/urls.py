from django.contrib.auth import views as auth
from django.urls import path

from accounts import views

app_name = "accounts"
urlpatterns = [
    path("", views.account, name="account"),
    path("register/", views.register, name="register"),
    path("login/", views.Login.as_view(), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("password/", views.PasswordChange.as_view(), name="password"),
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
