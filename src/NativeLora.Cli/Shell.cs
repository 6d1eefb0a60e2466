using System.CommandLine;
using System.CommandLine.Invocation;

namespace NativeLora.Cli;

/// <summary>Runs a command and turns errors into one line and an exit code: 2 for bad usage or input, 1 for a failure, 130 for Ctrl-C.</summary>
internal static class Shell
{
    public const int BadInput = 2;
    public const int Failure = 1;
    public const int Interrupted = 130;

    public static int Run(RootCommand root, string[] args)
    {
        var parsed = root.Parse(args);
        if (parsed.Errors.Count > 0 && parsed.Action is ParseErrorAction)
        {
            Fail(parsed.Errors[0].Message);
            return BadInput;
        }
        try
        {
            return parsed.Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null });
        }
        catch (InputException e)
        {
            Fail(e.Message);
            return BadInput;
        }
        catch (RunException e)
        {
            Fail(e.Message);
            return Failure;
        }
        catch (OperationCanceledException)
        {
            return Interrupted;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or OutOfMemoryException)
        {
            Fail(e.Message);
            return Failure;
        }
    }

    /// <summary>One line to the error stream.</summary>
    public static void Fail(string message) => Console.Error.WriteLine($"nativelora: {message.ReplaceLineEndings(" ")}");
}
