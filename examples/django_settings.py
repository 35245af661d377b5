"""The settings of `django_app`; what matters is its line in MIDDLEWARE."""

ALLOWED_HOSTS = ["127.0.0.1"]
MIDDLEWARE = ["django_app.customer_middleware"]
ROOT_URLCONF = "django_app"
