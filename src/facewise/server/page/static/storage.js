/** Access `sessionStorage` or `localStorage`; null if site data is blocked, in which case both throw. */
export function stored(name, use) {
  try {
    return use(window[name]);
  } catch {
    return null;
  }
}
