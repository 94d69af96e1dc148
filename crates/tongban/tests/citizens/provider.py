"""Sets up Canaille, an identity provider others wrote (https://canaille.readthedocs.io, MIT), with two people and one portal.

provider.py FOLDER PORT PORTAL PEOPLE: PORTAL is the portal's address, PEOPLE is JSON of [user, password, name, number] each.
"""

import datetime, json, os, secrets, sys
from pathlib import Path

folder, port, portal, people = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
folder.mkdir(parents=True)
config, database = folder / "canaille.toml", folder / "canaille.sqlite"
import tomlkit
from joserfc.jwk import ECKey, RSAKey

rsa = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)
ec = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
config.write_text(tomlkit.dumps({
    "SECRET_KEY": secrets.token_hex(32),
    "SERVER_NAME": f"localhost:{port}",
    "PREFERRED_URL_SCHEME": "http",
    "CANAILLE": {"NAME": "Test", "DATABASE": "sql", "LANGUAGE": "en", "TIMEZONE": "UTC", "JAVASCRIPT": False,
                 "HTMX": False, "CAPTCHA_ENABLED": False, "ENABLE_PASSWORD_RECOVERY": False},
    "CANAILLE_SQL": {"DATABASE_URI": f"sqlite:///{database}",
                     "PASSWORD_HASH_PARAMS": {"pbkdf2_sha512__rounds": 1000}},
    "CANAILLE_OIDC": {
        "ACTIVE_JWKS": [rsa.as_dict(private=True), ec.as_dict(private=True)],
        "USERINFO_MAPPING": {
            "SUB": "{{ user.user_name }}",
            "PREFERRED_USERNAME": "{{ user.employee_number }}",
        }},
}))
os.environ["CANAILLE_CONFIG"] = str(config)
from canaille import create_app
from canaille.app import models
from canaille.backends import Backend

app = create_app(init_backend=True)
with app.app_context(), Backend.instance.session():
    for user, password, name, number in people:
        Backend.instance.save(models.User(
            user_name=user, password=password, family_name=name[:1], given_name=name[1:], formatted_name=name,
            emails=[f"{user}@example.com"], employee_number=number))
    client = models.Client(
        client_id="portal", client_secret="portal-secret", client_name="Portal",
        client_uri=portal,  # on a trusted domain: nobody is asked whether the portal may know them
        redirect_uris=[f"{portal}/signin/back"], post_logout_redirect_uris=[f"{portal}/"],
        grant_types=["authorization_code"], response_types=["code"], scope=["openid", "profile"],
        token_endpoint_auth_method="client_secret_basic", id_token_signed_response_alg="ES256",
        client_id_issued_at=datetime.datetime.now(datetime.timezone.utc))
    Backend.instance.save(client)
    client.audience = [client]
    Backend.instance.save(client)
