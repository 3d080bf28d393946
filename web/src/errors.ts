// Errors whose sentences can be shown unchanged, with the REST API's codes.

export class ImageError extends Error {
  constructor(
    readonly code: string,
    readonly title: string,
    readonly detail: string,
  ) {
    super(detail);
  }
}

/** The page's files cannot be fetched, or are not from this build. */
export class ModelError extends Error {
  readonly code = "model_unavailable";
  readonly title = "The models could not be loaded";
  constructor(readonly detail: string) {
    super(detail);
  }
}
