// Development only: a wallet with test coins that stands in for MetaMask. Its keys are on the server, and worth nothing.
"use strict";
(() => {
  const icon = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>";
  const info = { uuid: "5c6b1f6e-0d1a-4d0a-9c53-6f1f4d4c0001", name: "Development wallet (test coins)", icon, rdns: "dml.development" };
  let count = 0;

  async function request({ method, params = [] }) {
    const body = JSON.stringify({ jsonrpc: "2.0", id: ++count, method, params });
    const csrf = document.querySelector("meta[name=csrf]").content;
    const headers = { "Content-Type": "application/json", "X-CSRFToken": csrf };
    const answer = await fetch("/dev/rpc/", { method: "POST", body, headers });
    if (!answer.ok || answer.redirected) throw Object.assign(new Error("The development wallet does not answer."), { code: -32603 });
    const { result, error } = await answer.json();
    if (error) throw Object.assign(new Error(error.message), { code: error.code });
    return result;
  }

  const detail = Object.freeze({ info: Object.freeze(info), provider: Object.freeze({ request, on() {}, removeListener() {} }) });
  const announce = () => window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail }));
  window.addEventListener("eip6963:requestProvider", announce);
  announce();
})();
