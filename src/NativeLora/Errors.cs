using System.Text;

namespace NativeLora;

/// <summary>
/// Bad input: a file, a setting or an argument. The message is one line that says what is wrong, where (file, tensor, line)
/// and what to do. The command line prints it and exits with code 2.
/// </summary>
public sealed class InputException : Exception
{
    /// <summary>Creates the error.</summary>
    /// <param name="message">One line: what, where, what to do. Control characters, which names in a file may hold, become blanks.</param>
    /// <param name="inner">The cause, if another exception revealed it.</param>
    public InputException(string message, Exception? inner = null) : base(OneLine.Of(message), inner) { }
}

/// <summary>A failure while running, such as a loss that is not a number or a full disk. The command line exits with code 1.</summary>
public sealed class RunException : Exception
{
    /// <summary>Creates the error.</summary>
    /// <param name="message">One line: what, where, what to do. Control characters become blanks.</param>
    /// <param name="inner">The cause, if another exception revealed it.</param>
    public RunException(string message, Exception? inner = null) : base(OneLine.Of(message), inner) { }
}

/// <summary>What a message may look like, whatever a file puts into it.</summary>
internal static class OneLine
{
    private const int Longest = 3000;

    /// <summary>
    /// Control characters and line separators become blanks, halves of surrogate pairs a replacement character; what is longer than any
    /// reader's patience is cut in its middle, for its beginning says where, and its end what to do.
    /// </summary>
    public static string Of(string message)
    {
        if (message.Length > Longest)
            message = $"{message[..(Longest / 2)]} … {message[^(Longest / 2)..]}";
        if (!message.Any(c => IsBreak(c) || char.IsSurrogate(c)))
            return message;
        var line = new StringBuilder(message.Length);
        foreach (var rune in message.EnumerateRunes())
            line.Append(rune.IsBmp && IsBreak((char)rune.Value) ? " " : rune.ToString());
        return line.ToString();
    }

    private static bool IsBreak(char c) => char.IsControl(c) || c is '\u2028' or '\u2029';
}
