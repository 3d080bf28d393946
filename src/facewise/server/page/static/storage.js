/** What the browser keeps, in `sessionStorage` or `localStorage`; null where site data is blocked, for then both throw. */
export function stored(name, use) {
  try {
    return use(window[name]);
  } catch {
    return null;
  }
}
