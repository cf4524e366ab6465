// Follows a ticket: a message on the socket, whatever it says, means "ask again". Without a socket, ask every 3 s.
"use strict";
(() => {
  const part = document.querySelector("[data-socket]");
  if (!part) return;
  const POLL = 3000, CALM = 5000, GAP = 400;
  let socket, last = 0, planned, wait = 1000;
  const seen = () => document.getElementById("said").dataset;
  const over = () => "over" in seen();

  // What is shown stays in its place and only what differs changes: focus and scroll are kept, and what a reader opened stays open.
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, element) => !(name === "open" && element.tagName === "DETAILS");
  part.addEventListener("htmx:configRequest", (event) => { if (event.target === part) event.detail.parameters.seen = seen().mark; });

  // Many messages in a row become one request, and the last one is never lost.
  function refresh() {
    if (planned) return;
    planned = setTimeout(() => {
      planned = undefined;
      last = Date.now();
      htmx.trigger(part, "refresh");
    }, Math.max(0, last + GAP - Date.now()));
  }

  function open() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(`${scheme}//${location.host}${part.dataset.socket}`);
    socket.addEventListener("open", () => { wait = 1000; refresh(); });
    socket.addEventListener("message", refresh);
    socket.addEventListener("close", () => { if (!over()) setTimeout(open, wait = Math.min(wait * 2, 60000)); });
  }

  // With a socket only now and then, in case a message was lost; and no more once there is nothing to wait for.
  setInterval(() => {
    const calm = socket.readyState === WebSocket.OPEN;
    if (!document.hidden && !over() && Date.now() - last >= (calm ? CALM : POLL)) refresh();
  }, 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !over()) refresh(); });
  open();
})();
