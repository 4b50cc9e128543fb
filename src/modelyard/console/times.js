// Moments come in UTC and are shown in the zone of whoever looks: <time data-utc="2026-11-30T19:00:00Z">.
(() => {
  const near = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const far = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
  function show(element) {
    const said = element.getAttribute("data-utc");
    const moment = new Date(said);
    const text = !said ? "–" : isNaN(moment) ? said
      : (Math.abs(Date.now() - moment) < 12 * 3600e3 && moment.getDate() === new Date().getDate() ? near : far).format(moment);
    if (element.textContent !== text) element.textContent = text;
    if (said && !isNaN(moment) && element.title !== whole.format(moment)) element.title = whole.format(moment);
  }
  const all = () => document.querySelectorAll("time[data-utc]").forEach(show);
  new MutationObserver(all).observe(document, {
    subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ["data-utc"],
  });
  document.addEventListener("DOMContentLoaded", all);
})();
