// The order page: the price as soon as a file is chosen, and the check of the file before paying.
"use strict";
(() => {
  const file = document.getElementById("file");
  if (!file) return;
  const check = document.getElementById("check");
  const checked = document.getElementById("checked");
  const price = document.getElementById("price");
  const button = document.getElementById("submit"), blocked = document.getElementById("blocked");
  const field = (name) => document.querySelector(`#order [name=${name}]`);
  const most = Number(file.dataset.most), mostChecked = Number(file.dataset.mostChecked);

  // What a price by complexity needs of the file: with the check's answer, else said by the customer.
  const work = ["samples", "sample_shape", "outputs", "tokens"].map(field);
  const say = (facts) => [facts.samples, facts.shape, facts.outputs, facts.tokens].forEach((value, at) => { work[at].value = value || ""; });

  // A model of one's own is counted when it is read; until then its price by complexity is not known.
  const own = document.getElementById("own-model");
  const unread = () => field("model_file").files.length > 0 && !own.querySelector("[name=own_operations]");

  function quote() {
    const bySize = field("price_scheme").value === "size-1";
    document.getElementById("work").hidden = bySize;
    const size = Number(field("file_size").value);
    if (!size || size > most) return;
    if (!bySize && unread()) price.replaceChildren("A price by complexity has to know your own model first.");
    else htmx.trigger(price, "price");
  }

  const readable = (size) => size < 1e6 ? `${Math.ceil(size / 1e3)} kB` : `${(size / 1e6).toFixed(1)} MB`;

  // A button that can't be pressed says why, far from the file as it is.
  function block(why) {
    button.disabled = Boolean(why);
    blocked.textContent = why;
  }
  const SEE = "First the file, above: what is wrong with it is said there.";

  function refuse(text) {
    const line = Object.assign(document.createElement("p"), { className: "error", role: "alert", textContent: text });
    checked.replaceChildren(line);
    block(SEE);
  }

  // Offers the header's names for the target, even where the check then fails for want of the right one. Of tables that are no text they come with the check.
  async function suggest(it) {
    const names = /\.(csv|tsv|txt)$/i.test(it.name) ? (await it.slice(0, 65536).text()).split(/\r?\n/, 1)[0].split(/[,;\t|]/) : [];
    document.getElementById("columns").replaceChildren(...names.slice(0, 500).map((name) =>
      Object.assign(document.createElement("option"), { value: name.trim().replace(/^\uFEFF?"?|"$/g, "") })));
  }

  function look(it) {
    if (!it || !it.size || it.size > mostChecked) return;
    block("The file is being checked.");
    htmx.trigger(check, "check");
  }

  function chosen() {
    const it = file.files[0];
    field("file_name").value = it ? it.name.slice(-200) : "";
    field("file_size").value = it ? it.size : "";
    document.getElementById("chosen").textContent = it ? `${it.name}, ${readable(it.size)}` : "";
    checked.replaceChildren();
    block("");
    price.replaceChildren();
    if (!it) return;
    suggest(it);
    quote();
    if (it.size && it.size <= most) kept.keep(it);
    if (!it.size) refuse("The file is empty. Please choose another one.");
    else if (it.size > most) refuse(`The file is larger than ${readable(most)}, the most we take.`);
    else if (it.size > mostChecked) checked.textContent = "This file is too large to be checked before paying. If it cannot be trained on, you get the whole payment back.";
    else look(it);
  }

  // An answer of the check that is an error keeps the order closed; one that never came does not. One that a newer check replaced says nothing.
  check.addEventListener("htmx:afterRequest", (event) => {
    const status = event.detail.xhr.status;
    if (status) block(status === 422 ? SEE : "");
  });
  check.addEventListener("htmx:sendError", () => {
    block("");
    checked.textContent = "The check did not get through. You can order all the same: a file that cannot be trained on is refunded.";
  });
  checked.addEventListener("htmx:afterSwap", () => {
    const facts = document.getElementById("facts");
    if (facts) { say(facts.dataset); quote(); }
  });
  document.getElementById("order").addEventListener("input", (event) => {
    if (event.target === field("model_file")) own.replaceChildren();
    quote();
  });
  own.addEventListener("htmx:afterSwap", quote);
  file.addEventListener("change", () => { say({}); chosen(); });
  for (const name of ["target", "task"]) field(name).addEventListener("change", () => { if (file.files[0]) chosen(); });
  for (const name of ["group", "sharding", "window", "horizon", "class_weights"]) field(name).addEventListener("change", () => look(file.files[0]));

  // A page that comes back with an error has lost its files: they are put where one would choose them, if the browser could keep them.
  const models = ["model_file", "model_weights"].map(field);
  for (const input of models) {
    input.addEventListener("change", () => input.files[0] ? kept.keep(input.files[0], input.name) : kept.drop(input.name));
  }

  async function again(input, key) {
    const it = await kept.held(key);
    if (!it || input.files.length) return;
    const one = new DataTransfer();
    one.items.add(it);
    input.files = one.files;
  }

  async function comeBack() {
    await Promise.all(models.map((input) => again(input, input.name)));
    const it = await kept.held();
    if (it?.size === Number(field("file_size").value) && it.name.slice(-200) === field("file_name").value) await again(file);
  }

  // By the back button, the page knows the file or at least its size. htmx is ready only then.
  document.addEventListener("DOMContentLoaded", async () => {
    if ("again" in document.getElementById("order").dataset) await comeBack();
    else models.forEach((input) => { if (!input.files.length) kept.drop(input.name); });
    if (file.files[0]) chosen();
    else quote();
  });
})();
