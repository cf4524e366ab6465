from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in, user_login_failed


class Config(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        from accounts import sessions

        user_logged_in.connect(sessions.began)
        user_login_failed.connect(sessions.refused)
