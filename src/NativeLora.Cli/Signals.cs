using System.Runtime.InteropServices;

namespace NativeLora.Cli;

/// <summary>What the system tells a process: to stop, that its terminal is gone, that a file grew too large.</summary>
internal static class Signals
{
    private const int Interrupt = 2, FileTooLarge = 25;
    private static readonly CancellationTokenSource Source = new();
    private static readonly List<PosixSignalRegistration> Registrations = [];
    private static int _number = Interrupt;

    /// <summary>Set by Ctrl-C and its like: long work stops at the next point where nothing is left half done. A second one ends the process.</summary>
    public static CancellationToken Cancellation => Source.Token;

    /// <summary>128 and the signal's number, as shells have it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.</summary>
    public static int ExitCode => 128 + _number;

    /// <summary>Lets them stop the work in an orderly way.</summary>
    public static void Listen()
    {
        Console.CancelKeyPress += (_, e) => e.Cancel = Stop(Interrupt);
        // What a scheduler sends before it ends a job.
        Registrations.Add(PosixSignalRegistration.Create(PosixSignal.SIGTERM, signal => signal.Cancel = Stop(15)));
        // The terminal was closed. Under nohup it is not delivered.
        Registrations.Add(PosixSignalRegistration.Create(PosixSignal.SIGHUP, signal => signal.Cancel = Stop(1)));
        // The write fails too, with an error that says which file.
        if (!OperatingSystem.IsWindows())
            Registrations.Add(PosixSignalRegistration.Create((PosixSignal)FileTooLarge, signal => signal.Cancel = true));
    }

    private static bool Stop(int number)
    {
        if (Source.IsCancellationRequested)
            return false;
        _number = number;
        Source.Cancel();
        return true;
    }
}
