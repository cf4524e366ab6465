// The order page: what the customer says of the columns, in the table that the check shows, goes into the order form's hidden fields.
"use strict";
(() => {
  const checked = document.getElementById("checked");
  const file = document.getElementById("file");
  if (!checked || !file) return;
  const field = (name) => document.querySelector(`#order [name=${name}]`);
  let name = field("file_name").value, open = false;

  function collect() {
    const out = [...checked.querySelectorAll("[data-leave-out]:checked")].map((it) => it.dataset.leaveOut);
    const kinds = [...checked.querySelectorAll("[data-kind]")].filter((it) => it.value).map((it) => [it.dataset.kind, it.value]);
    field("leave_out").value = JSON.stringify(out);
    field("kinds").value = JSON.stringify(Object.fromEntries(kinds));
  }

  function forget() {
    field("leave_out").value = "[]";
    field("kinds").value = "{}";
  }

  checked.addEventListener("change", (event) => {
    if (event.target.matches("[data-leave-out], [data-kind]")) collect();
  });
  checked.addEventListener("click", (event) => {
    if (event.target.matches("[data-check-again]")) htmx.trigger("#check", "check");
  });

  // A choice that the check refuses must be taken back without its table, which is gone.
  document.getElementById("check").addEventListener("htmx:afterRequest", (event) => {
    const chosen = field("leave_out").value.length > 2 || field("kinds").value.length > 2;
    if (event.detail.xhr.status !== 422 || !chosen) return;
    const button = Object.assign(document.createElement("button"), { type: "button", className: "plain", textContent: "Forget my choice of columns" });
    button.addEventListener("click", () => { forget(); htmx.trigger("#check", "check"); });
    checked.append(button);
  });

  // Whoever has the table of columns open wants to see in it what came of a choice.
  checked.addEventListener("htmx:beforeSwap", () => { open = Boolean(checked.querySelector("details[data-table][open]")); });
  checked.addEventListener("htmx:afterSwap", () => { if (open) checked.querySelector("details[data-table]")?.setAttribute("open", ""); });

  // Another file has other columns; the first one may be that of the order which is repeated.
  file.addEventListener("change", () => {
    const next = file.files[0] ? file.files[0].name : "";
    if (name && next !== name) forget();
    name = next || name;
  });
})();
