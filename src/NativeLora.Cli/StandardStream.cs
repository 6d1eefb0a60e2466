using System.Text;

namespace NativeLora.Cli;

/// <summary>
/// The output or error stream. Where it cannot be written (a full disk, a terminal that is gone), the work goes on: hours of training are worth
/// more than a line about them. The command fails at its end.
/// </summary>
internal sealed class StandardStream(TextWriter stream) : TextWriter
{
    /// <summary>Why something is missing; null if all was written.</summary>
    public string? Failure { get; private set; }

    public override Encoding Encoding => stream.Encoding;

    public override void Write(char value) => Try(() => stream.Write(value));

    public override void Write(string? value) => Try(() => stream.Write(value));

    public override void Write(char[] buffer, int index, int count) => Try(() => stream.Write(buffer, index, count));

    public override void WriteLine() => Try(stream.WriteLine);

    public override void WriteLine(string? value) => Try(() => stream.WriteLine(value));

    public override void Flush() => Try(stream.Flush);

    private void Try(Action write)
    {
        try
        {
            write();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ObjectDisposedException)
        {
            Failure ??= e.Message.TrimEnd('.');
        }
    }
}
