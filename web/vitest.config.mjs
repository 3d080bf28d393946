// A test that hangs is stopped; one on a busy machine is not.
export default { test: { testTimeout: 120_000 } };
