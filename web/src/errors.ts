// Errors whose sentences can be shown as they are; the codes are the REST API's.

export class ImageError extends Error {
  constructor(
    readonly code: string,
    readonly title: string,
    readonly detail: string,
  ) {
    super(detail);
  }
}

/** The files of the page cannot be fetched, or are not the ones that were built. */
export class ModelError extends Error {
  readonly code = "model_unavailable";
  readonly title = "The models could not be loaded";
  constructor(readonly detail: string) {
    super(detail);
  }
}
