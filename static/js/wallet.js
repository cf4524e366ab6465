// Asks the browser's wallet to sign what the server prepared. EIP-6963 finds wallets, EIP-1193 speaks to them.
//
//   <div data-wallet="ADDRESS-INPUT-ID">             fills in the account of the chosen wallet ("Connect")
//   <div data-wallet data-call="URL" data-from="0x…"> posts to URL and has the wallet send the answer's transaction
//
// Inside, a [data-wallet-go] button starts it, a [data-wallet-list] takes the choice, a [data-wallet-state] the state.
// Nothing the browser says about money counts on the server: it waits for the chain's own event.
"use strict";
(() => {
  const wallets = new Map();
  const found = (event) => {
    const { info, provider } = event.detail;
    if (!wallets.has(info.uuid)) wallets.set(info.uuid, { info, provider });
    document.querySelectorAll("[data-wallet]").forEach(offer);
  };
  window.addEventListener("eip6963:announceProvider", found);

  function all() {
    const list = [...wallets.values()];
    if (!list.length && window.ethereum) {
      list.push({ info: { uuid: "injected", name: "Browser wallet" }, provider: window.ethereum });
    }
    return list;
  }

  // One wallet: a button. Several: a list to choose from.
  function offer(box) {
    const place = box.querySelector("[data-wallet-list]");
    const list = all();
    if (!place || place.childElementCount === list.length) return;
    place.replaceChildren(...list.map(({ info }, index) => {
      const label = document.createElement("label");
      const radio = Object.assign(document.createElement("input"), {
        type: "radio", name: `wallet-${box.id}`, value: info.uuid, checked: index === 0,
      });
      label.append(radio, ` ${info.name}`);
      return label;
    }));
    place.hidden = list.length < 2 && !list.some(({ info }) => info.rdns === "dml.development");
  }

  function chosen(box) {
    const list = all();
    const uuid = box.querySelector("[data-wallet-list] input:checked")?.value;
    return list.find(({ info }) => info.uuid === uuid) || list[0];
  }

  function say(box, state, text) {
    const place = box.querySelector("[data-wallet-state]");
    place.className = `state ${state}`;
    place.textContent = text;
  }

  const shown = (address) => `${address.slice(0, 6)}…${address.slice(-4)}`;

  function explain(error) {
    if (error.code === 4001) return "You declined in your wallet. Nothing was sent; you can try again.";
    if (error.code === 4100) return "Your wallet does not allow this account here. Connect it and try again.";
    if (error.code === -32002) return "Your wallet already shows a request. Please open it and answer there.";
    return error.message || "The wallet gave no answer.";
  }

  async function onChain(provider, chain) {
    const same = async () => Number(await provider.request({ method: "eth_chainId" })) === Number(chain.chainId);
    if (await same()) return;
    try {
      await provider.request({ method: "wallet_switchEthereumChain", params: [{ chainId: chain.chainId }] });
    } catch (error) {
      const unknown = error.code === 4902 || error.data?.originalError?.code === 4902;
      if (!unknown || !chain.rpcUrls.length) throw error;
      await provider.request({ method: "wallet_addEthereumChain", params: [chain] });
    }
    if (!(await same())) throw new Error(`Your wallet is on another network. Please switch it to ${chain.chainName}.`);
  }

  async function prepared(url, address) {
    const body = new URLSearchParams({ address });
    const answer = await fetch(url, { method: "POST", body, headers: { "X-CSRFToken": csrf(), "HX-Request": "true" } });
    if (answer.ok && !answer.redirected) return answer.json();
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    throw new Error(page.querySelector(".error")?.textContent.trim() || "The site gave no answer. Please reload the page.");
  }

  const csrf = () => document.querySelector("meta[name=csrf]").content;

  async function account(box, provider) {
    const accounts = await provider.request({ method: "eth_requestAccounts" });
    const wanted = box.dataset.from;
    if (!wanted) return accounts[0];
    const match = accounts.find((address) => address.toLowerCase() === wanted.toLowerCase());
    if (!match) throw new Error(`This is for the wallet ${shown(wanted)}, but yours shows ${shown(accounts[0])}. Choose that account in your wallet.`);
    return match;
  }

  async function send(box, provider, address) {
    const { transaction, chain } = await prepared(box.dataset.call, address);
    await onChain(provider, chain);
    say(box, "busy", "Please confirm in your wallet…");
    const hash = await provider.request({ method: "eth_sendTransaction", params: [transaction] });
    say(box, "busy", `Sent as ${hash}. Waiting until the chain has made it final; this page goes on by itself.`);
    box.classList.add("sent");
  }

  function fill(box, address) {
    const input = document.getElementById(box.dataset.wallet);
    input.value = address;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    say(box, "good", `Connected: ${shown(address)}`);
  }

  async function go(box, button) {
    const wallet = chosen(box);
    if (!wallet) return say(box, "bad", "No wallet found. Install one, MetaMask for example, and reload this page.");
    button.disabled = true;
    say(box, "busy", `Asking ${wallet.info.name}…`);
    try {
      const address = await account(box, wallet.provider);
      await (box.dataset.call ? send(box, wallet.provider, address) : fill(box, address));
    } catch (error) {
      say(box, "bad", explain(error));
    }
    button.disabled = box.classList.contains("sent");
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-wallet-go]");
    if (button) go(button.closest("[data-wallet]"), button);
  });
  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("[data-wallet]").forEach(offer));
  document.addEventListener("htmx:afterSwap", () => document.querySelectorAll("[data-wallet]").forEach(offer));
  window.dispatchEvent(new Event("eip6963:requestProvider"));
})();
