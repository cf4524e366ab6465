"""The home page, the error pages, and what every page with a wallet button needs."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from contracts.chain import Call
from ledger import money

# What a wallet that does not know the chain is told about it. CHAIN_RPC_URL may hold a secret and is never shown.
PUBLIC_CHAINS: dict[int, dict[str, Any]] = {
    80002: {"name": "Polygon Amoy", "rpc": "https://rpc-amoy.polygon.technology", "coin": "POL"},
    137: {"name": "Polygon", "rpc": "https://polygon-rpc.com", "coin": "POL"},
    11155111: {"name": "Sepolia", "rpc": "https://rpc.sepolia.org", "coin": "ETH"},
}


def home(request: HttpRequest) -> HttpResponse:
    examples = [(size, money.price(size * 10**6)) for size in (1, 10, 100)]
    return render(request, "home.html", {"examples": examples, "share": 100 - money.FEE_PERCENT})


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    text = "There is no such page, or it is not yours to see."
    return render(request, "error.html", {"message": text, "status": 404}, status=404)


def wallet_request(call: Call, sender: str) -> JsonResponse:
    """What the page's JavaScript passes on to the wallet: the prepared transaction, and the chain it belongs to."""
    transaction = call.for_wallet(sender, settings.CHAIN_ID)
    return JsonResponse({"transaction": transaction, "chain": chain_for_wallet()})


def chain_for_wallet() -> dict[str, Any]:
    """EIP-3085's description of the chain; without `rpcUrls` where none may be shown (it cannot be added then)."""
    about = PUBLIC_CHAINS.get(settings.CHAIN_ID, {"name": f"chain {settings.CHAIN_ID}", "rpc": "", "coin": "ETH"})
    if settings.DEVELOPMENT and settings.CHAIN_ID == 31337:
        about = {"name": "DML development chain", "rpc": settings.CHAIN_RPC_URL, "coin": "ETH"}
    return {
        "chainId": hex(settings.CHAIN_ID),
        "chainName": about["name"],
        "rpcUrls": [about["rpc"]] if about["rpc"] else [],
        "nativeCurrency": {"name": about["coin"], "symbol": about["coin"], "decimals": 18},
        "blockExplorerUrls": [settings.CHAIN_EXPLORER] if settings.CHAIN_EXPLORER else None,
    }
