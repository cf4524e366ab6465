// The file of an order stays in this browser until it is uploaded, so that nobody has to choose it twice. What cannot be kept (no room,
// a private window) is chosen again.
"use strict";
const kept = (() => {
  const BASE = "dml-files", STORE = "files", ORDER = "order", MOST_AGE = 2 * 24 * 3600 * 1000;
  const answer = (request) => new Promise((done, failed) => {
    request.onsuccess = () => done(request.result);
    request.onerror = () => failed(request.error);
  });

  async function within(act) {
    try {
      const opening = indexedDB.open(BASE, 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
      const base = await answer(opening);
      const found = await act(base.transaction(STORE, "readwrite").objectStore(STORE));
      base.close();
      return found;
    } catch {
      return undefined;
    }
  }

  // Files of orders that nobody went on with do not stay for ever.
  async function tidy(store) {
    for (const key of await answer(store.getAllKeys())) {
      if (Date.now() - (await answer(store.get(key))).at > MOST_AGE) store.delete(key);
    }
  }

  return {
    keep: (file, key = ORDER) => within(async (store) => {
      await tidy(store);
      await answer(store.put({ file, at: Date.now() }, key));
    }),
    held: (key = ORDER) => within(async (store) => (await answer(store.get(key)))?.file),
    drop: (key) => within((store) => answer(store.delete(key))),
    // The file of a ticket; the one that was just ordered with becomes it, if name and size are the ticket's.
    take: (ticket, name, size) => within(async (store) => {
      const mine = await answer(store.get(ticket));
      if (mine) return mine.file;
      const ordered = await answer(store.get(ORDER));
      if (ordered?.file.size !== size || ordered.file.name.slice(-200) !== name) return undefined;
      store.delete(ORDER);
      await answer(store.put(ordered, ticket));
      return ordered.file;
    }),
  };
})();
