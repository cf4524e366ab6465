"""One settings file; everything that differs between a laptop and a data centre is an environment variable."""

import os
from pathlib import Path

import dj_database_url

from dmlsite import embedded, env
from dmlworker.snp import PARTS
from ledger.pricing import FLOPS_PER_CENT
from observe import logs, reports

BASE_DIR = Path(__file__).resolve().parent.parent

# --- Where we run -----------------------------------------------------------------------------------------------------
DEVELOPMENT = env.choice("DML_ENV", "development", ("development", "production")) == "development"
VAR_DIR = env.path("DML_VAR_DIR", BASE_DIR / "var")
EMBEDDED = embedded.Layout(VAR_DIR)

DEBUG = env.flag("DEBUG", False)
SECRET_KEY = env.secret("SECRET_KEY") or (embedded.secret_key(VAR_DIR) if DEVELOPMENT else "")
if not SECRET_KEY:
    raise env.BadSetting("Environment variable SECRET_KEY: required when DML_ENV=production, or SECRET_KEY_FILE")

SITE_URL = env.text("SITE_URL", "http://localhost:8000").rstrip("/")
ALLOWED_HOSTS = env.listed("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]", "testserver"] if DEVELOPMENT else [])
CSRF_TRUSTED_ORIGINS = [SITE_URL]
SECURE_PROXY = env.flag("BEHIND_TLS_PROXY", not DEVELOPMENT)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_PROXY
if SECURE_PROXY:  # browsers take these from this very host only, and over TLS
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-sessionid", "__Host-csrftoken"
SESSION_COOKIE_AGE = 14 * 24 * 3600
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if SECURE_PROXY else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = SECURE_PROXY
SECURE_SSL_REDIRECT = SECURE_PROXY
if SECURE_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"
DEFAULT_EXCEPTION_REPORTER_FILTER = "observe.redaction.Filter"

# --- The parts --------------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "daphne",
    "whitenoise.runserver_nostatic",
    "dmlsite.admin_site.Config",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "channels",
    "django_dramatiq",
    "django_htmx",
    "django_otp",
    "django_otp.plugins.otp_static",
    "django_otp.plugins.otp_totp",
    "drf_spectacular",
    "rest_framework",
    "rest_framework.authtoken",
    "storages",
    "dmlsite",
    "accounts",
    "ledger",
    "observe",
    "providers",
    "tickets",
    "training",
]
MIDDLEWARE = [
    "dmlsite.csp.PolicyMiddleware",
    "dmlsite.errors.nul_is_missing",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "observe.inbound.NameView",
    "dmlsite.errors.DomainErrorMiddleware",
]
ROOT_URLCONF = "dmlsite.urls"
ASGI_APPLICATION = "dmlsite.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "dmlsite.context.site",
            ],
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
FORMS_URLFIELD_ASSUME_HTTPS = True
TIME_ZONE = "UTC"
USE_TZ = True
LANGUAGE_CODE = "en-gb"

# --- Database, Redis, broker, channel layer ---------------------------------------------------------------------------
DATABASES = {"default": dj_database_url.parse(env.secret("DATABASE_URL", EMBEDDED.database_url), conn_max_age=60)}
if not DATABASES["default"]["ENGINE"].endswith("postgresql"):
    raise env.BadSetting("Environment variable DATABASE_URL: only PostgreSQL serves (row locks, exact integers)")
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
# Few different queries, asked all the time: the server plans each once, which took longer than to answer it.
DATABASES["default"].setdefault("OPTIONS", {}).update(server_side_binding=True, prepare_threshold=5)
REDIS_URL = env.secret("REDIS_URL", EMBEDDED.redis_url)
BROKER_URL = env.secret("BROKER_URL", REDIS_URL)
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
# The layer waits up to 5 s for a message; redis-py 8 gives up on any answer after 5 s, which would end idle sockets.
LAYER_HOST = {"address": REDIS_URL, "socket_timeout": 30}
CHANNEL_LAYERS = {
    "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [LAYER_HOST]}},
}
DRAMATIQ_BROKER = {
    **embedded.broker(BROKER_URL),
    "MIDDLEWARE": [
        "observe.background.Background",
        "dramatiq.middleware.AgeLimit",
        "dramatiq.middleware.TimeLimit",
        "dramatiq.middleware.ShutdownNotifications",
        "dramatiq.middleware.Callbacks",
        "dramatiq.middleware.Retries",
        "django_dramatiq.middleware.DbConnectionsMiddleware",
    ],
}
# Milliseconds at most between two looks at an idle queue. Dramatiq's own default, a second, is most of a short round.
os.environ.setdefault("dramatiq_worker_timeout", "50")
DRAMATIQ_AUTODISCOVER_MODULES = ["tasks"]
# Replays are judged by how far TensorFlow's kernels are from each other; workers may choose another library, not the jobs.
os.environ["KERAS_BACKEND"] = "tensorflow"
# NumPy's products of a round's updates: on several threads they took ten times as long where other processes were at work too, and other
# bits came out. One that is set wins; before NumPy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# --- Files ------------------------------------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = embedded.made(VAR_DIR / "static")
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True
FILE_STORE = env.choice("FILE_STORE", "disk", ("disk", "s3", "gcs"))
STORE_LINK_SECONDS = env.integer("STORE_LINK_SECONDS", 600, minimum=60)
STORES = {
    "disk": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {}},
    "s3": {
        "BACKEND": "dmlsite.stores.S3",
        "OPTIONS": {
            "bucket_name": env.text("S3_BUCKET"),
            "endpoint_url": env.text("S3_ENDPOINT") or None,  # none: Amazon's own
            "region_name": env.text("S3_REGION") or None,
            "access_key": env.secret("S3_ACCESS_KEY") or None,  # none: the machine's own role
            "secret_key": env.secret("S3_SECRET_KEY") or None,
            "querystring_expire": STORE_LINK_SECONDS,
        },
    },
    "gcs": {
        "BACKEND": "dmlsite.stores.Google",
        "OPTIONS": {
            "bucket_name": env.text("GCS_BUCKET"),
            "emulator": env.text("GCS_EMULATOR"),
            "key_file": env.text("GCS_CREDENTIALS_FILE"),  # none: the machine's own account
            "expiration": STORE_LINK_SECONDS,
        },
    },
}
if FILE_STORE != "disk" and not STORES[FILE_STORE]["OPTIONS"]["bucket_name"]:
    raise env.BadSetting(f"Environment variable {FILE_STORE.upper()}_BUCKET: required when FILE_STORE={FILE_STORE}")
STORAGES = {
    "default": STORES[FILE_STORE],
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
MEDIA_ROOT = VAR_DIR / "files"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 10**6
FILE_UPLOAD_TEMP_DIR = embedded.made(VAR_DIR / "tmp")
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
MAX_DATASET_BYTES = env.integer("MAX_DATASET_BYTES", 10**10, minimum=1)
MAX_CHECK_BYTES = env.integer("MAX_CHECK_BYTES", 64 * 10**6)
FLOPS_PER_CENT = env.integer("FLOPS_PER_CENT", FLOPS_PER_CENT, minimum=1)  # of compute-1
EXPORT_FORMATS = env.listed("EXPORT_FORMATS", ["SavedModel", "TFLite", "ONNX"])
"""Formats that a model comes in besides Keras' own; each takes some seconds of a processor. Any other word, such as none: none."""
ARTIFACT_LINK_SECONDS = env.integer("ARTIFACT_LINK_SECONDS", 7 * 24 * 3600, minimum=60)

# --- People -----------------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
LOGIN_URL = "accounts:login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "home"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}", "OPTIONS": options}
    for name, options in (
        ("UserAttributeSimilarityValidator", {}),
        ("MinimumLengthValidator", {"min_length": 12}),
        ("CommonPasswordValidator", {}),
    )
]
LOGIN_RATE = env.text("LOGIN_RATE", "10/5m")
# Admins need a second factor. Where none is demanded, whoever has set one up is asked for it all the same.
ADMIN_TWO_FACTOR = env.flag("ADMIN_TWO_FACTOR", not DEVELOPMENT)
OTP_TOTP_ISSUER = "DML"
# Which modules hold something about people: `refusal(user)`, `export(user)`, `erase(user)` (accounts/personal.py).
PERSONAL_DATA = ["providers.personal", "tickets.personal", "training.personal"]

# --- Mail -------------------------------------------------------------------------------------------------------------
EMAIL_FILE_PATH = VAR_DIR / "mail"
EMAIL_BACKEND = env.text(
    "EMAIL_BACKEND",
    "django.core.mail.backends.filebased.EmailBackend"
    if DEVELOPMENT
    else "django.core.mail.backends.smtp.EmailBackend",
)
EMAIL_HOST = env.text("EMAIL_HOST", "localhost")
EMAIL_PORT = env.integer("EMAIL_PORT", 25)
EMAIL_HOST_USER = env.text("EMAIL_HOST_USER")
EMAIL_HOST_PASSWORD = env.secret("EMAIL_HOST_PASSWORD")
EMAIL_USE_TLS = env.flag("EMAIL_USE_TLS", False)
EMAIL_TIMEOUT = (
    60  # seconds for each answer of the server: all of them take less than a mail is claimed for (tickets/mail.py)
)
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.text("DEFAULT_FROM_EMAIL", "DML <noreply@dml.example>")
ADMINS = [
    ("DML admins", address) for address in env.listed("ADMIN_EMAILS", ["admin@dml.example"] if DEVELOPMENT else [])
]

# --- The chain --------------------------------------------------------------------------------------------------------
CHAIN_RPC_URL = env.secret("CHAIN_RPC_URL", EMBEDDED.chain_url)
CHAIN_ID = env.integer("CHAIN_ID", 31337, minimum=1)
CHAIN_DEPLOYMENT = env.path("CHAIN_DEPLOYMENT", VAR_DIR / "deployment.json")
CHAIN_EXPLORER = env.text("CHAIN_EXPLORER")
# Told to those whose wallet has too little, e.g. "Buy some at https://…".
WHERE_TO_GET_DML = env.text(
    "WHERE_TO_GET_DML", "The development wallet of this site is given test DML." if DEVELOPMENT else ""
)
CHAIN_TIP_GWEI = env.integer("CHAIN_TIP_GWEI", 1 if DEVELOPMENT else 30)  # Polygon wants 25 or more
QUOTER_KEYSTORE = env.path("QUOTER_KEYSTORE", VAR_DIR / "keys" / "quoter.json")
SETTLER_KEYSTORE = env.path("SETTLER_KEYSTORE", VAR_DIR / "keys" / "settler.json")
GUARDIAN_KEYSTORE = env.path("GUARDIAN_KEYSTORE", VAR_DIR / "keys" / "guardian.json")
ADMIN_KEYSTORE = env.path("ADMIN_KEYSTORE", VAR_DIR / "keys" / "admin.json")
KEY_PASSPHRASE_FILE = env.path("KEY_PASSPHRASE_FILE", VAR_DIR / "keys" / "passphrase")
CHAIN_BUMP_SECONDS = env.integer("CHAIN_BUMP_SECONDS", 120, minimum=1)
CHAIN_MAX_FEE_GWEI = env.integer("CHAIN_MAX_FEE_GWEI", 1000, minimum=1)
# Admins are told when the chain is silent, or its finality stands still, for so long; when a transaction is not final
# so long after it was due; when a hot key's coins reach for fewer transactions.
CHAIN_LAG_SECONDS = env.integer("CHAIN_LAG_SECONDS", 900, minimum=1)
CHAIN_OVERDUE_SECONDS = env.integer("CHAIN_OVERDUE_SECONDS", 3600, minimum=1)
GAS_RUNWAY = env.integer("GAS_RUNWAY", 50)
RECONCILE_SECONDS = env.integer("RECONCILE_SECONDS", 60 if DEVELOPMENT else 600, minimum=1)
# A built-in wallet backed by the development chain's test accounts. Never in production, never on a real chain.
DEV_WALLET = env.flag("DEV_WALLET", True) and DEVELOPMENT and CHAIN_ID == 31337
SCAN_SECONDS = env.integer("SCAN_MILLISECONDS", 500 if DEVELOPMENT else 3000, minimum=50) / 1000

# --- The market -------------------------------------------------------------------------------------------------------
QUOTE_SECONDS = env.integer("QUOTE_SECONDS", 3600, minimum=60)
SETTLE_SECONDS = env.integer("SETTLE_SECONDS", 7 * 24 * 3600, minimum=600)
UPLOAD_SECONDS = env.integer("UPLOAD_SECONDS", 24 * 3600, minimum=1)
KEEP_DATA_DAYS = env.integer("KEEP_DATA_DAYS", 30, minimum=1)
PROVIDERS_PER_TICKET = env.integer("PROVIDERS_PER_TICKET", 4, minimum=1)
WORKERS_PER_PROVIDER = env.integer("WORKERS_PER_PROVIDER", 1000, minimum=1)  # online at once
RUNS_PER_WORKER = env.integer("RUNS_PER_WORKER", 4, minimum=1)
# A round that nobody finishes goes on with updates of so many of its shards; 100: it waits for all of them.
QUORUM_PERCENT = env.integer("QUORUM_PERCENT", 75, minimum=1)
# Audits may be switched off where all providers are known and trusted. A provider's first so many pieces of work are audited, then
# one by chance, more seldom the longer all is well, but never less than this.
AUDITS = env.flag("AUDITS", True)
AUDIT_FIRST = env.integer("AUDIT_FIRST", 10, minimum=0)
AUDIT_PERCENT = env.integer("AUDIT_PERCENT", 8, minimum=0)
# How long a worker's attestation holds; the least security versions of AMD's firmware; and AMD's certificates (docs/attestation.md).
ATTESTATION_SECONDS = env.integer("ATTESTATION_SECONDS", 24 * 3600, minimum=60)
SNP_MINIMUM_TCB = env.levels("SNP_MINIMUM_TCB", {product: len(parts) for product, parts in PARTS.items()})
AMD_CERTIFICATES = env.path("AMD_CERTIFICATES", BASE_DIR / "providers" / "amd")
# What a DML is worth in the chain's coin, for the arithmetic of deposits in the admin; 0: not known, as on a test chain.
DML_IN_COIN = env.decimal("DML_IN_COIN")
LEASE_SECONDS = env.integer("LEASE_SECONDS", 120, minimum=2)
PRESENCE_SECONDS = env.integer("PRESENCE_SECONDS", 30, minimum=2)
SWEEP_SECONDS = env.integer("SWEEP_SECONDS", 5, minimum=1)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "accounts.authentication.KeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated", "accounts.authentication.KeyScope"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PARSER_CLASSES": [
        "dmlsite.rest.PlainJSONParser",
        "rest_framework.parsers.FormParser",
        "rest_framework.parsers.MultiPartParser",
    ],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "EXCEPTION_HANDLER": "dmlsite.errors.problem_response",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "DML",
    "DESCRIPTION": "A market for decentralised machine learning.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
}

# --- What is told of itself (docs/observing.md) -----------------------------------------------------------------------
LOG_FORMAT = env.choice("LOG_FORMAT", "line" if DEVELOPMENT else "json", ("line", "json"))
LOGGING = logs.configuration(LOG_FORMAT, env.text("LOG_LEVEL", "INFO"))
# /metrics asks for this token; where there is none, only the machine itself may look.
METRICS_TOKEN = env.secret("METRICS_TOKEN")
# Where jobs or a scanner answer scrapes, another one for each group of processes; 0: nowhere.
METRICS_PORT = env.integer("METRICS_PORT", 0)
# The same error is mailed to the admins once in so long; all errors together so often; 0: never.
ERROR_MAIL_MINUTES = env.integer("ERROR_MAIL_MINUTES", 15, minimum=1)
ERROR_MAILS_PER_HOUR = env.integer("ERROR_MAILS_PER_HOUR", 20)
if SENTRY_DSN := env.secret("SENTRY_DSN"):
    reports.start_sentry(SENTRY_DSN)
