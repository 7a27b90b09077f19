// What is said in a conversation, in the words that chat templates share.

export interface ToolCall {
  readonly id?: string;
  readonly name: string;
  /** One JSON object, as text: the order and the writing of numbers are kept. */
  readonly arguments: string;
}
export interface Message {
  /** `developer` and `latest_reminder` are V4's. */
  readonly role: 'system' | 'user' | 'assistant' | 'tool' | 'developer' | 'latest_reminder';
  readonly content: string;
  /** An assistant's thoughts before its content. */
  readonly reasoning?: string;
  readonly toolCalls?: readonly ToolCall[];
  /** The call that a tool message answers. */
  readonly toolCallId?: string;
  /** Functions on offer (OpenAI's form), where a message and not the request offers them. */
  readonly tools?: readonly unknown[];
  /** V4's side tasks: action, query, authority, domain, read_url on a user's message, title on an assistant's. */
  readonly task?: string;
}

export const tokens = {
  bos: '<｜begin▁of▁sentence｜>',
  eos: '<｜end▁of▁sentence｜>',
  user: '<｜User｜>',
  assistant: '<｜Assistant｜>',
} as const;
