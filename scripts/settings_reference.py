"""docs/settings.md, out of what settings.py reads: `make settings-reference`. Types and defaults are the readers' own; what each
setting means stands here, and a test sees that none is forgotten.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "settings.md"
HEAD = """# Settings

Everything that differs between a laptop and a data centre is an environment variable. A value that cannot be used stops the program
at start, and names the variable. Written by `make settings-reference`; please don't edit it.

A **secret** may also lie in a file: `NAME_FILE` is its path, as Docker's and Kubernetes' secrets have it; `NAME` itself wins. Never put
a secret into an image, a repository or a command line.

Defaults are those of development; where production (`DML_ENV=production`) has another one, it follows. Paths are below the checkout.
"""
SHOW = """
import json, dmlsite.settings
from dmlsite import env
print(json.dumps({name: [one.kind, str(one.default), one.secret] for name, one in env.READ.items()}))
"""
MEANINGS = {
    "Where we run": {
        "DML_ENV": "Which defaults count. In production there is no development wallet, and cookies and redirects want TLS.",
        "DML_VAR_DIR": "Files, keys and logs of this installation.",
        "DEBUG": "Django's error pages with the code. Never in production.",
        "SECRET_KEY": "Signs sessions and links: at least 50 random characters. Required in production. A new one ends every session and link.",
        "SITE_URL": "The address of the site, as people type it. In mails, and trusted for forms.",
        "ALLOWED_HOSTS": "Host names that the site answers to.",
        "BEHIND_TLS_PROXY": "A proxy in front ends TLS and sets X-Forwarded-Proto: cookies are for TLS alone, HTTP is redirected, HSTS is on.",
    },
    "What is told of itself": {
        "LOG_FORMAT": "Lines for people, or a JSON object a line.",
        "LOG_LEVEL": "DEBUG, INFO, WARNING or ERROR.",
        "METRICS_TOKEN": "/metrics asks for it (Bearer). Without one, only the machine itself may look.",
        "METRICS_PORT": "Where jobs or a scanner answer scrapes, another one for each group of processes; 0: nowhere.",
        "ERROR_MAIL_MINUTES": "The same error is mailed to the admins once in so long.",
        "ERROR_MAILS_PER_HOUR": "All errors together are mailed so often.",
        "SENTRY_DSN": "Errors go to Sentry, too.",
    },
    "Database, Redis, broker": {
        "DATABASE_URL": "postgres://user:password@host:port/name. Only PostgreSQL serves (15 or newer is tested).",
        "REDIS_URL": "redis://:password@host:port/number, rediss:// with TLS, or unix://. Cache, throttles, and messages to sockets.",
        "BROKER_URL": "What carries jobs: redis://…, or amqp://user:password@host:port/vhost for RabbitMQ, which then confirms each message. If not set, Redis.",
    },
    "Files": {
        "FILE_STORE": "Where files lie: a disk that all processes share, S3 (Amazon's, or what speaks as it does), Google Cloud Storage.",
        "STORE_LINK_SECONDS": "How long a link signed for the object store is good for.",
        "S3_BUCKET": "Required with s3. Nobody else writes to it, and it is not public.",
        "S3_ENDPOINT": "Of a store that is not Amazon's, such as https://minio.example.org; browsers and workers reach it, too.",
        "S3_REGION": "Of the bucket.",
        "S3_ACCESS_KEY": "If not set, the role of the machine.",
        "S3_SECRET_KEY": "Belongs to the access key.",
        "GCS_BUCKET": "Required with gcs. Not public.",
        "GCS_CREDENTIALS_FILE": "The JSON key of a service account, which also signs links. If not set, the machine's own account.",
        "GCS_EMULATOR": "The address of an emulator, for tests.",
        "MAX_DATASET_BYTES": "The largest file that a customer may order with.",
        "MAX_CHECK_BYTES": "The largest file that is described before it is paid for; 0: none.",
        "EXPORT_FORMATS": "What a model comes in besides Keras' own. Any other word, such as none: none.",
        "ARTIFACT_LINK_SECONDS": "How long the mailed links to a model work; the ticket's page renews them.",
    },
    "People": {
        "LOGIN_RATE": "Tries to log in, for an address and for a computer: number/time.",
        "ADMIN_TWO_FACTOR": "Whether admins need a second factor.",
    },
    "Mail": {
        "EMAIL_BACKEND": "Django's class that sends mail.",
        "EMAIL_HOST": "The SMTP server.",
        "EMAIL_PORT": "Its port.",
        "EMAIL_HOST_USER": "Who logs in there; empty: nobody.",
        "EMAIL_HOST_PASSWORD": "Their password.",
        "EMAIL_USE_TLS": "Whether STARTTLS is demanded.",
        "DEFAULT_FROM_EMAIL": "The sender of all mails.",
        "ADMIN_EMAILS": "Who is told of alarms and errors.",
    },
    "The chain": {
        "CHAIN_RPC_URL": "A node of the chain. Often with a key in it, therefore a secret.",
        "CHAIN_ID": "The chain's number: 31337 is the development chain, 80002 Polygon Amoy.",
        "CHAIN_DEPLOYMENT": "Written by `manage.py deploy_contracts`: where the contracts are. The same for every process.",
        "CHAIN_EXPLORER": "An explorer's address, for links to transactions.",
        "WHERE_TO_GET_DML": "Told to those whose wallet has too little.",
        "CHAIN_TIP_GWEI": "What our transactions offer at least; Polygon wants 25 or more.",
        "QUOTER_KEYSTORE": "The key that signs quotes.",
        "SETTLER_KEYSTORE": "The hot key that pays out.",
        "GUARDIAN_KEYSTORE": "The key that pauses and vetoes.",
        "ADMIN_KEYSTORE": "The cold key. Only the deployment needs it: keep it elsewhere.",
        "KEY_PASSPHRASE_FILE": "Opens the keystores.",
        "CHAIN_BUMP_SECONDS": "A transaction that is not mined after so long is sent again with a higher fee.",
        "CHAIN_MAX_FEE_GWEI": "No fee goes higher.",
        "CHAIN_LAG_SECONDS": "Admins are told when the chain is silent, or its finality stands still, for so long.",
        "CHAIN_OVERDUE_SECONDS": "Admins are told when a transaction is not final so long after it was due.",
        "GAS_RUNWAY": "Admins are told when a hot key's coins reach for fewer transactions.",
        "RECONCILE_SECONDS": "How often the books are compared with the chain.",
        "DEV_WALLET": "The built-in wallet with test coins; on a development chain alone.",
        "SCAN_MILLISECONDS": "How often the scanner looks for blocks.",
    },
    "The market": {
        "FLOPS_PER_CENT": "Operations that 0.01 DML buys, where a price is by what training computes.",
        "QUOTE_SECONDS": "How long a quote may be paid.",
        "SETTLE_SECONDS": "After so long anybody may have an undecided payment returned.",
        "KEEP_DATA_DAYS": "A customer's file, and the parts cut of it, are erased so many days after the ticket's end.",
        "UPLOAD_SECONDS": "How long a paid ticket waits for its file.",
        "PROVIDERS_PER_TICKET": "Into how many shards a file is cut.",
        "WORKERS_PER_PROVIDER": "Connections that one provider may have at once.",
        "RUNS_PER_WORKER": "Tickets that one worker is given at once.",
        "QUORUM_PERCENT": "A round that nobody finishes goes on with updates of so many of its shards; 100: it waits for all.",
        "AUDITS": "Off only where all providers are known and trusted.",
        "AUDIT_FIRST": "A provider's first pieces of work that are all audited.",
        "AUDIT_PERCENT": "The chance of an audit never falls below this.",
        "ATTESTATION_SECONDS": "How long a worker's attestation holds ([attestation.md](attestation.md)).",
        "SNP_MINIMUM_TCB": "The least security versions of AMD's firmware, as `Milan=4.0.22.213,Genoa=10.0.23.84`; empty: any.",
        "AMD_CERTIFICATES": "AMD's certificates, a file for each product.",
        "DML_IN_COIN": "What a DML is worth in the chain's coin, for the arithmetic of deposits in the admin; 0: not known.",
        "LEASE_SECONDS": "A piece of work without progress goes to somebody else after so long.",
        "PRESENCE_SECONDS": "A worker that was silent for so long is away.",
        "SWEEP_SECONDS": "How often everything that a crash or a lost message left undone is looked for.",
    },
}


def read(environment: str) -> dict[str, tuple[str, str, bool]]:
    """What settings.py reads by default in development or production: type, default, whether it is a secret."""
    with TemporaryDirectory() as folder:
        given = {"PATH": os.environ["PATH"], "DML_ENV": environment, "DML_VAR_DIR": folder, "SECRET_KEY": "x"}
        done = subprocess.run(
            [sys.executable, "-c", SHOW], cwd=ROOT, env=given, capture_output=True, text=True, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout.replace(folder, "var").replace(f"{ROOT}/", ""))
    return {name: (kind, default, secret) for name, (kind, default, secret) in found.items()}


def page() -> str:
    """Raises KeyError for a setting without a meaning, or a meaning without a setting."""
    ours, production = read("development"), read("production")
    told = {name for names in MEANINGS.values() for name in names}
    if odd := told ^ set(ours):
        raise KeyError(f"in settings.py or in MEANINGS, but not in both: {', '.join(sorted(odd))}")
    parts = [HEAD]
    for title, names in MEANINGS.items():
        rows = [_row(name, meaning, ours[name], production[name]) for name, meaning in names.items()]
        parts.append(
            "\n".join(
                [f"## {title}", "| Variable | What it holds | Default | Meaning |", "|---|---|---|---|", *rows, ""]
            )
        )
    return "\n".join(parts)


def _row(name: str, meaning: str, ours: tuple[str, str, bool], production: tuple[str, str, bool]) -> str:
    kind, default, secret = ours
    shown = _shown(name, default)
    if (other := _shown(name, production[1])) != shown:
        shown += f"; production: {other}"
    return f"| `{name}` | {'**secret** ' if secret else ''}{kind} | {shown} | {meaning} |"


def _shown(name: str, default: str) -> str:
    if name in ("DATABASE_URL", "REDIS_URL", "BROKER_URL"):
        return "the embedded server"
    words = {"True": "yes", "False": "no", "": "none", "[]": "none"}
    return words.get(default) or f"`{default.strip('[]').replace(chr(39), '') if default.startswith('[') else default}`"


if __name__ == "__main__":
    PAGE.write_text(page())
