namespace NativeLora.Hosting;

/// <summary>
/// One row to learn from, or to evaluate on: a text with its class, a text with a score, or a prompt with the text that is to follow it.
/// All rows of a <see cref="FineTuner"/> are of one kind, which is its task.
/// </summary>
public sealed record TrainingRow
{
    private TrainingRow(string text, string? pair, string? label, float? score, string? completion) =>
        (Text, Pair, Label, Score, Completion) = (text, pair, label, score, completion);

    /// <summary>The text, or the prompt.</summary>
    public string Text { get; }

    /// <summary>The second text of a pair; null where there is none.</summary>
    public string? Pair { get; }

    /// <summary>Name of the class; null in rows of other kinds.</summary>
    public string? Label { get; }

    /// <summary>The score; null in rows of other kinds.</summary>
    public float? Score { get; }

    /// <summary>What is to follow the prompt; null in rows of other kinds.</summary>
    public string? Completion { get; }

    /// <summary>A text, or a pair of texts, of a class.</summary>
    /// <param name="text">The text.</param>
    /// <param name="label">Name of its class.</param>
    /// <param name="pair">The second text of a pair.</param>
    public static TrainingRow Classified(string text, string label, string? pair = null)
    {
        ArgumentNullException.ThrowIfNull(text);
        ArgumentNullException.ThrowIfNull(label);
        return new TrainingRow(text, pair, label, null, null);
    }

    /// <summary>A text, or a pair of texts, with a score to predict.</summary>
    /// <param name="text">The text.</param>
    /// <param name="score">Its score: a finite number.</param>
    /// <param name="pair">The second text of a pair.</param>
    public static TrainingRow Scored(string text, float score, string? pair = null)
    {
        ArgumentNullException.ThrowIfNull(text);
        return new TrainingRow(text, pair, null, score, null);
    }

    /// <summary>A prompt and what a decoder is to write after it.</summary>
    /// <param name="prompt">The prompt; nothing is learnt from it.</param>
    /// <param name="completion">The text to learn; the end of text is added.</param>
    public static TrainingRow Completed(string prompt, string completion)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        ArgumentNullException.ThrowIfNull(completion);
        return new TrainingRow(prompt, null, null, null, completion);
    }
}
