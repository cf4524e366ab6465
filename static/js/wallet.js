// Asks the browser's wallet to sign what the server prepared. EIP-6963 finds wallets, EIP-1193 speaks to them.
//
//   <div data-wallet="ADDRESS-INPUT-ID">             fills in the account of the chosen wallet ("Connect")
//   <div data-wallet data-call="URL" data-from="0x…"> posts to URL and has the wallet send the answer's transaction
//   <div data-wallet data-sign="URL" data-done="URL"> has the wallet sign the text of the one, and shows it to the other;
//                                                     a [data-wallet-password] inside goes with the request for the text
//
// Inside, a [data-wallet-go] button starts it; where there are several wallets, [data-wallet-list] then takes the choice. [data-wallet-state]
// is where it stands. What was sent is remembered, and [data-wallet-again] then takes the first button's place.
// Nothing the browser says about money counts on the server: it waits for the chain's own event.
"use strict";
(() => {
  const GET_ONE = "https://metamask.io", MEMORY = "dml-sent";
  const wallets = new Map(), followed = new WeakSet(), using = new WeakMap();
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

  // Addresses of pages in a text become links.
  function say(box, state, text) {
    const place = box.querySelector("[data-wallet-state]");
    place.className = `state ${state}`;
    place.replaceChildren(...text.split(/(https?:\/\/[^\s]*[^\s.,)])/).map((words, n) => n % 2 ? link(words, words) : words));
  }

  const link = (href, content) => {
    const found = Object.assign(document.createElement("a"), { href, target: "_blank", rel: "noreferrer" });
    found.append(content);
    return found;
  };

  const shown = (address) => `${address.slice(0, 6)}…${address.slice(-4)}`;
  const same = (one, other) => one?.toLowerCase() === other?.toLowerCase();
  const otherAccount = (wanted, has) => `This is for the wallet ${shown(wanted)}, but yours shows ${shown(has)}. Choose that account in your wallet.`;
  const starters = (box) => box.querySelectorAll("[data-wallet-go]");
  const busy = (box) => starters(box)[0].disabled;

  function explain(error) {
    if (error.code === 4001) return "You declined in your wallet. Nothing was sent; you can try again.";
    if (error.code === 4100) return "Your wallet does not allow this account here. Connect it and try again.";
    if (error.code === -32002) return "Your wallet already shows a request. Please open it and answer there.";
    return error.message || "The wallet gave no answer.";
  }

  async function onChain(provider, chain) {
    const there = async () => Number(await provider.request({ method: "eth_chainId" })) === Number(chain.chainId);
    if (await there()) return;
    try {
      await provider.request({ method: "wallet_switchEthereumChain", params: [{ chainId: chain.chainId }] });
    } catch (error) {
      const unknown = error.code === 4902 || error.data?.originalError?.code === 4902;
      if (!unknown || !chain.rpcUrls.length) throw error;
      await provider.request({ method: "wallet_addEthereumChain", params: [chain] });
    }
    if (!(await there())) throw new Error(`Your wallet is on another network. Please switch it to ${chain.chainName}.`);
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
    const match = accounts.find((address) => same(address, wanted));
    if (!match) throw new Error(otherAccount(wanted, accounts[0]));
    return match;
  }

  async function send(box, provider, address) {
    const { transaction, chain } = await ask(box.dataset.call, { address });
    await onChain(provider, chain);
    say(box, "busy", "Please confirm in your wallet…");
    const hash = await provider.request({ method: "eth_sendTransaction", params: [transaction] });
    remember(box.dataset.call, { hash, page: location.pathname });
    sent(box, hash);
  }

  // A page that is loaded again before the chain was seen would offer to pay once more: so the tab remembers what it sent.
  const remembered = () => JSON.parse(sessionStorage.getItem(MEMORY) || "{}");
  const remember = (call, what) => sessionStorage.setItem(MEMORY, JSON.stringify({ ...remembered(), [call]: what }));

  function sent(box, hash) {
    const code = Object.assign(document.createElement("code"), { textContent: hash, title: hash });
    const place = box.querySelector("[data-wallet-state]");
    say(box, "busy", "");
    place.append("Sent as ", box.dataset.explorer ? link(`${box.dataset.explorer}/tx/${hash}`, code) : code);
    place.append(". Waiting until the chain has made it final; this page goes on by itself.");
    starters(box)[0].hidden = true;
    const again = box.querySelector("[data-wallet-again]");
    again.open = again.hidden = false;
    box.classList.add("sent");
  }

  // What its own page no longer asks for has arrived: the next time is another one.
  function recall() {
    for (const [call, { hash, page }] of Object.entries(remembered())) {
      const box = document.querySelector(`[data-call="${call}"]`);
      if (box && !box.classList.contains("sent")) sent(box, hash);
      else if (!box && page === location.pathname) remember(call, undefined);
    }
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

  // Another account or network chosen in the wallet, before or after the click, is told in every box that uses this wallet.
  function follow(box, provider) {
    using.set(box, { provider });
    if (followed.has(provider)) return;
    followed.add(provider);
    const boxes = () => [...document.querySelectorAll("[data-wallet]")].filter((one) => using.get(one)?.provider === provider && !one.classList.contains("sent"));
    provider.on?.("accountsChanged", ([address]) => boxes().forEach((one) => accountChanged(one, provider, address)));
    provider.on?.("chainChanged", (id) => boxes().forEach((one) => chainChanged(one, id)));
  }

  function accountChanged(box, provider, address) {
    const wanted = box.dataset.from, { address: before = address } = using.get(box);
    if (!address) say(box, "bad", "Your wallet is no longer connected. Connect it again.");
    else if (box.dataset.wallet) fill(box, provider, address);
    else if (wanted && !same(address, wanted)) say(box, "bad", otherAccount(wanted, address));
    else if (!busy(box)) say(box, "good", `Your wallet shows ${shown(address)} now.`);
    else if (!same(address, before)) say(box, "bad", `Your wallet shows ${shown(address)} now, but it was asked for ${shown(before)}. Decline there, and start again.`);
  }

  // While it is being asked, a change to the right network is what we asked for. For a signature any network will do.
  function chainChanged(box, id) {
    const right = Number(id) === Number(box.dataset.chain);
    if (box.dataset.sign || (right && busy(box))) return;
    if (right) say(box, "good", "Your wallet is on the right network.");
    else say(box, "bad", "Your wallet is on another network now. It is asked to change back before anything is sent.");
  }

  async function go(box, wallet) {
    box.querySelector("[data-wallet-list]").hidden = true;
    starters(box).forEach((button) => { button.disabled = true; });
    say(box, "busy", `Asking ${wallet.info.name}… If it is locked, open it and unlock it.`);
    follow(box, wallet.provider);
    try {
      const address = await account(box, wallet.provider);
      using.set(box, { provider: wallet.provider, address });
      const act = box.dataset.call ? send : box.dataset.sign ? sign : fill;
      await act(box, wallet.provider, address);
    } catch (error) {
      say(box, "bad", explain(error));
    }
    starters(box).forEach((button) => { button.disabled = false; });
  }

  function begin(box) {
    const list = all();
    if (!list.length) return say(box, "bad", `No wallet found. Get one, at ${GET_ONE} for example, and reload this page.`);
    if (list.length > 1) return offer(box, list);
    go(box, list[0]);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-wallet-go]");
    if (button) begin(button.closest("[data-wallet]"));
  });
  window.dispatchEvent(new Event("eip6963:requestProvider"));
  document.addEventListener("htmx:afterSettle", recall);
  recall();
})();
