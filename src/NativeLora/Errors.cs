namespace NativeLora;

/// <summary>
/// Bad input: a file, a setting or an argument. The message is one line that says what is wrong, where (file, tensor, line)
/// and what to do. The command line prints it and exits with code 2.
/// </summary>
public sealed class InputException : Exception
{
    /// <summary>Creates the error.</summary>
    /// <param name="message">One line: what, where, what to do.</param>
    /// <param name="inner">The cause, if another exception revealed it.</param>
    public InputException(string message, Exception? inner = null) : base(message, inner) { }
}

/// <summary>A failure while running, such as a loss that is not a number or a full disk. The command line exits with code 1.</summary>
public sealed class RunException : Exception
{
    /// <summary>Creates the error.</summary>
    /// <param name="message">One line: what, where, what to do.</param>
    /// <param name="inner">The cause, if another exception revealed it.</param>
    public RunException(string message, Exception? inner = null) : base(message, inner) { }
}
