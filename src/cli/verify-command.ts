export async function verifyCommand(..._: unknown[]): Promise<number> {
  return 1;
}
