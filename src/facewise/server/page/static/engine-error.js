/** The error that engines throw; its sentences can be shown to visitors unchanged. */
export class EngineError extends Error {
  constructor(code, title, detail, retryAfterSeconds = null) {
    super(detail);
    Object.assign(this, { code, title, detail, retryAfterSeconds });
  }
}
