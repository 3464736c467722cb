/** Posts JSON to one of the two sign-in endpoints. `error` is a sentence for people. */
export async function post<T>(url: string, body: unknown): Promise<{ data?: T; error?: string; code?: string }> {
  try {
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    const answer = (await response.json()) as T & { error?: string; code?: string };
    if (response.ok) return { data: answer };
    return { error: answer.error ?? `The server returned ${response.status}.`, code: answer.code };
  } catch {
    return { error: "The server isn't responding. Check your connection and try again." };
  }
}
