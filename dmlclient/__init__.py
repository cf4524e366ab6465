"""Have models trained on DML: `DML(url, key).train("iris.csv", target="species").result()`."""

from dmlclient.client import DML, AsyncDML, AsyncJob, Job
from dmlclient.errors import (
    Damaged,
    DataError,
    DMLError,
    Expired,
    InvalidInput,
    NetworkError,
    NotAllowed,
    NotFound,
    NotLoggedIn,
    PaymentError,
    Refunded,
    Refused,
    TooMany,
    Unavailable,
    WrongState,
)
from dmlclient.records import File, Happened, Payment, Received, Result, Round, Sent, Terms, Ticket
from dmlclient.wallet import Keystore

__version__ = "0.1.0"
__all__ = [
    "DML",
    "AsyncDML",
    "AsyncJob",
    "DMLError",
    "Damaged",
    "DataError",
    "Expired",
    "File",
    "Happened",
    "InvalidInput",
    "Job",
    "Keystore",
    "NetworkError",
    "NotAllowed",
    "NotFound",
    "NotLoggedIn",
    "Payment",
    "PaymentError",
    "Received",
    "Refunded",
    "Refused",
    "Result",
    "Round",
    "Sent",
    "Terms",
    "Ticket",
    "TooMany",
    "Unavailable",
    "WrongState",
]
