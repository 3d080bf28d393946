// Stops a test that hangs, but not one on a busy machine.
export default { test: { testTimeout: 120_000 } };
