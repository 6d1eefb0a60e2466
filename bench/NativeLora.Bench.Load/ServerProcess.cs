using System.Diagnostics;
using System.Net;

namespace NativeLora.Bench.Load;

/// <summary>A server in a process of its own.</summary>
internal sealed class ServerProcess : IDisposable
{
    private readonly Process _process;

    private ServerProcess(string name, Process process, IPEndPoint address) => (Name, _process, Address) = (name, process, address);

    public string Name { get; }

    public IPEndPoint Address { get; }

    /// <summary>Seconds of processor time so far.</summary>
    public double ProcessorSeconds
    {
        get
        {
            _process.Refresh();
            return _process.TotalProcessorTime.TotalSeconds;
        }
    }

    /// <summary>Resident bytes now.</summary>
    public long Resident
    {
        get
        {
            _process.Refresh();
            return _process.WorkingSet64;
        }
    }

    public static ServerProcess Start(string name, params IEnumerable<string> args)
    {
        var start = new ProcessStartInfo(Environment.ProcessPath!) { RedirectStandardInput = true, RedirectStandardOutput = true };
        // Under "dotnet X.dll" the process is dotnet.
        if (Path.GetFileNameWithoutExtension(Environment.ProcessPath) == "dotnet")
            start.ArgumentList.Add(typeof(ServerProcess).Assembly.Location);
        foreach (var argument in (string[])["serve", .. args, "--Urls=http://127.0.0.1:0"])
            start.ArgumentList.Add(argument);
        var process = Process.Start(start) ?? throw new RunException($"{name} does not start");
        var url = process.StandardOutput.ReadLine();
        if (url is null)
        {
            process.WaitForExit();
            throw new RunException($"{name} ended with code {process.ExitCode} before it listened");
        }
        return new ServerProcess(name, process, new IPEndPoint(IPAddress.Loopback, new Uri(url).Port));
    }

    public void Dispose()
    {
        _process.StandardInput.Close();
        if (!_process.WaitForExit(TimeSpan.FromSeconds(20)))
            _process.Kill();
        _process.Dispose();
    }
}
