'use strict';
// Brings a page up to date. Everything that it shows is drawn by the server, which also works without this.

(() => {
  const FOCUSABLE = 'a, button, summary, input, select, [tabindex]';

  // Exchanges a part and keeps what the reader has done to it: what is unfolded, scrolled and focused.
  const exchange = (id, hash, html) => {
    const part = document.getElementById(id);
    if (!part || part.dataset.hash === hash) return;
    const all = (selector) => [...part.querySelectorAll(selector)];
    const open = all('details[open]').map((details) => details.id);
    // What is drawn while it happens is unfolded unless the reader folds it.
    const folded = all('details.drawn:not([open])').map((details) => details.id);
    const scrolled = all('.scroll').map((region) => [region.scrollTop, region.scrollLeft]);
    const focused = all(FOCUSABLE).indexOf(document.activeElement);
    part.dataset.hash = hash;
    part.innerHTML = html;
    for (const name of [...open, ...folded]) {
      const details = name && document.getElementById(name);
      if (details) details.open = open.includes(name);
    }
    all('.scroll').forEach((region, i) => {
      if (scrolled[i]) [region.scrollTop, region.scrollLeft] = scrolled[i];
    });
    if (focused >= 0) all(FOCUSABLE)[focused]?.focus({ preventScroll: true });
  };

  const live = document.querySelector('[data-events]');
  if (live) {
    const lost = document.getElementById('connection');
    // Drawn once a frame, and only the latest: a page that draws slower than news come does not fall behind.
    const latest = new Map();
    const draw = () => {
      const parts = [...latest];
      latest.clear();
      for (const [id, [hash, html]] of parts) exchange(id, hash, html);
      document.dispatchEvent(new Event('exchanged'));
    };
    // Another program than the one that the page came from knows nothing of what the page shows.
    let program = null;
    const startAgain = () => {
      sessionStorage.setItem('restarted', '1');
      const form = document.getElementById('controls');
      if (location.pathname === '/run' && form) location.replace(`/?${new URLSearchParams(new FormData(form))}`);
      else location.reload();
    };
    let events;
    const connect = () => {
      events = new EventSource(live.dataset.events);
      events.addEventListener('program', ({ data }) => {
        lost.hidden = true;
        if (program && program !== data) startAgain();
        program = data;
      });
      events.onmessage = (message) => {
        lost.hidden = true;
        if (latest.size === 0) {
          if (document.hidden) setTimeout(draw, 250); else requestAnimationFrame(draw);
        }
        for (const [id, hash, html] of JSON.parse(message.data)) latest.set(id, [hash, html]);
      };
      events.onerror = () => {
        lost.hidden = false;
        // The browser asks again by itself, except after an answer that is no stream of events.
        if (events.readyState === EventSource.CLOSED) setTimeout(connect, 1000);
      };
    };
    connect();
    const restarted = document.getElementById('restarted');
    if (restarted && sessionStorage.getItem('restarted')) {
      sessionStorage.removeItem('restarted');
      restarted.hidden = false;
    }
    // A page that is left lets go at once.
    addEventListener('pagehide', () => events.close());
    addEventListener('pageshow', (event) => { if (event.persisted) location.reload(); });
  }
})();
