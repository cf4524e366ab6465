"""A browser's wallet with one test key: it is injected as an extension would do it (EIP-6963, EIP-1193), and signs here."""

from collections.abc import Callable
from typing import Any

from eth_account import Account
from eth_account.messages import encode_defunct

from contracts.chain import GWEI, Call, ChainError, Key
from tests.conftest import Live

SCRIPT = """
(() => {
  const provider = {
    async request({ method, params = [] }) {
      if (method === "eth_sendTransaction") await window.testWait;  // set by a test in which somebody thinks it over
      const { result, error } = await window.testWallet(method, params);
      if (error) throw Object.assign(new Error(error.message), { code: error.code });
      return result;
    },
    on(event, told) { window.addEventListener(`test:${event}`, ({ detail }) => told(detail)); }, removeListener() {},
  };
  const icon = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>";
  const info = { uuid: "11111111-2222-4333-8444-555555555555", name: "Test wallet", icon, rdns: "org.example.test" };
  const detail = Object.freeze({ info, provider });
  const announce = () => window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail }));
  window.addEventListener("eip6963:requestProvider", announce);
  announce();
})();
"""


class Wallet:
    """A wallet with one key. `refuse` makes its owner decline the next request to sign; `chain_id` is where it starts, and
    where it stays while `stuck`; `locked` has it answer that it asked its owner already. `unknown`: it has to be told of the chain
    first, and keeps in `added` what it was told. `holds`: what it signs does not reach the chain."""

    def __init__(self, platform: Live) -> None:
        self.key: Key = Account.create()
        self.chain, self.refuse, self.chain_id, self.sent = platform.chain, False, 1, list[str]()
        self.stuck = self.locked = self.unknown = self.holds = False
        self.added = list[dict[str, Any]]()

    def __call__(self, method: str, params: list[Any]) -> dict[str, Any]:
        answers: dict[str, Callable[[], Any]] = {
            "eth_requestAccounts": lambda: [self.key.address],
            "eth_chainId": lambda: hex(self.chain_id),
            "wallet_switchEthereumChain": lambda: self._switch(int(params[0]["chainId"], 16)),
            "wallet_addEthereumChain": lambda: self._add(params[0]),
            "eth_sendTransaction": lambda: self._send(params[0]),
            "personal_sign": lambda: self._sign(*params),
        }
        if method in ("eth_sendTransaction", "personal_sign") and self.refuse:
            self.refuse = False
            return {"error": {"code": 4001, "message": "User rejected the request."}}
        if self.locked:
            return {"error": {"code": -32002, "message": "Already processing."}}
        if method == "wallet_switchEthereumChain" and self.unknown:
            return {"error": {"code": 4902, "message": "Unrecognized chain ID."}}
        try:
            return {"result": answers[method]()}
        except (ChainError, KeyError) as error:
            return {"error": {"code": -32603, "message": str(error)}}

    def _switch(self, chain_id: int) -> None:
        self.chain_id = self.chain_id if self.stuck else chain_id

    def _add(self, chain: dict[str, Any]) -> None:
        self.unknown = False
        self.added.append(chain)
        self._switch(int(chain["chainId"], 16))

    def _sign(self, message: str, address: str) -> str:
        assert address == self.key.address
        return "0x" + self.key.sign_message(encode_defunct(hexstr=message)).signature.hex()

    def _send(self, tx: dict[str, str]) -> str:
        assert tx["from"] == self.key.address
        call = Call(tx["to"], tx["data"], int(tx["value"], 16) // GWEI)
        signed = self.chain.sign(call, self.key, self.chain.next_nonce(self.key.address))
        self.sent.append(signed.hash if self.holds else self.chain.broadcast(signed.raw))
        return self.sent[-1]
