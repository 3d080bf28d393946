/** What an engine throws: its sentences can be shown as they are. */
export class EngineError extends Error {
  constructor(code, title, detail, retryAfterSeconds = null) {
    super(detail);
    Object.assign(this, { code, title, detail, retryAfterSeconds });
  }
}
