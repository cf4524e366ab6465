// Asks the browser's wallet to sign what the server prepared. EIP-6963 finds wallets, EIP-1193 speaks to them.
//
//   <div data-wallet="ADDRESS-INPUT-ID">             fills in the account of the chosen wallet ("Connect")
//   <div data-wallet data-call="URL" data-from="0x…"> posts to URL and has the wallet send the answer's transaction
//   <div data-wallet data-sign="URL" data-done="URL"> has the wallet sign the text of the one, and shows it to the other;
//                                                     a [data-wallet-password] inside goes with the request for the text
//
// Inside, a [data-wallet-go] button starts it; where there are several wallets, [data-wallet-list] then takes the choice. [data-wallet-state]
// is where it stands.
// Nothing the browser says about money counts on the server: it waits for the chain's own event.
"use strict";
(() => {
  const wallets = new Map(), followed = new WeakSet();
  const found = (event) => {
    const { info, provider } = event.detail;
    if (!wallets.has(info.uuid)) wallets.set(info.uuid, { info, provider });
  };
  window.addEventListener("eip6963:announceProvider", found);

  function all() {
    const list = [...wallets.values()];
    if (!list.length && window.ethereum) {
      list.push({ info: { uuid: "injected", name: "Browser wallet" }, provider: window.ethereum });
    }
    return list;
  }

  // Several wallets: a button for each, after the click, so that nothing moves while the page loads.
  function offer(box, list) {
    const place = box.querySelector("[data-wallet-list]");
    place.replaceChildren(...list.map((wallet) => {
      const button = Object.assign(document.createElement("button"), { type: "button", className: "plain", textContent: wallet.info.name });
      button.addEventListener("click", () => go(box, wallet));
      return button;
    }));
    place.hidden = false;
    place.firstChild.focus();
    say(box, "busy", "Which wallet?");
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

  async function ask(url, fields) {
    const body = new URLSearchParams(fields);
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
    const { transaction, chain } = await ask(box.dataset.call, { address });
    await onChain(provider, chain);
    say(box, "busy", "Please confirm in your wallet…");
    const hash = await provider.request({ method: "eth_sendTransaction", params: [transaction] });
    say(box, "busy", `Sent as ${hash}. Waiting until the chain has made it final; this page goes on by itself.`);
    const [explorer] = chain.blockExplorerUrls || [];
    if (explorer) box.querySelector("[data-wallet-state]").append(" ", Object.assign(document.createElement("a"), { href: `${explorer}/tx/${hash}`, textContent: "See it in the explorer", target: "_blank", rel: "noreferrer" }));
    box.classList.add("sent");
  }

  const hex = (text) => "0x" + [...new TextEncoder().encode(text)].map((byte) => byte.toString(16).padStart(2, "0")).join("");

  async function sign(box, provider, address) {
    const password = box.querySelector("[data-wallet-password]")?.value;
    const { text } = await ask(box.dataset.sign, password === undefined ? { address } : { address, password });
    say(box, "busy", "Please sign in your wallet. It costs nothing.");
    const signature = await provider.request({ method: "personal_sign", params: [hex(text), address] });
    const { next } = await ask(box.dataset.done, { signature, next: box.dataset.next });
    location.assign(next);
  }

  function fill(box, provider, address) {
    const input = document.getElementById(box.dataset.wallet);
    input.value = address;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    say(box, "good", `Connected: ${shown(address)}`);
  }

  // Another account chosen in the wallet is another one here, too.
  function follow(box, provider) {
    if (!box.dataset.wallet || followed.has(provider)) return;
    followed.add(provider);
    provider.on?.("accountsChanged", ([address]) => {
      if (address) fill(box, provider, address);
      else say(box, "bad", "Your wallet is no longer connected. Connect it again.");
    });
  }

  async function go(box, wallet) {
    const button = box.querySelector("[data-wallet-go]");
    box.querySelector("[data-wallet-list]").hidden = true;
    button.disabled = true;
    say(box, "busy", `Asking ${wallet.info.name}… If it is locked, open it and unlock it.`);
    try {
      const address = await account(box, wallet.provider);
      const act = box.dataset.call ? send : box.dataset.sign ? sign : fill;
      await act(box, wallet.provider, address);
      follow(box, wallet.provider);
    } catch (error) {
      say(box, "bad", explain(error));
    }
    button.disabled = box.classList.contains("sent");
  }

  function begin(box) {
    const list = all();
    if (!list.length) return say(box, "bad", "No wallet found. Install one, MetaMask for example, and reload this page.");
    if (list.length > 1) return offer(box, list);
    go(box, list[0]);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-wallet-go]");
    if (button) begin(button.closest("[data-wallet]"));
  });
  window.dispatchEvent(new Event("eip6963:requestProvider"));
})();
