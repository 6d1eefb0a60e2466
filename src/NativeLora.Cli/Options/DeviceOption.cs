using System.CommandLine;
using System.Globalization;
using NativeLora.Devices;
using NativeLora.Devices.Cpu;
using NativeLora.Devices.Cuda;

namespace NativeLora.Cli.Options;

/// <summary>Which device is worked on.</summary>
/// <param name="Gpu">Number of the GPU; null for the CPU.</param>
internal readonly record struct DeviceChoice(int? Gpu)
{
    public static Option<string> Option() => new("--device")
    {
        Description = "cpu, cuda for the first NVIDIA GPU, or cuda:N for another",
        HelpName = "DEVICE",
        DefaultValueFactory = _ => "cpu",
    };

    public static DeviceChoice Parse(string text)
    {
        if (text == "cpu")
            return default;
        if (text == "cuda")
            return new(0);
        return text.StartsWith("cuda:", StringComparison.Ordinal) && int.TryParse(text.AsSpan(5), NumberStyles.None, CultureInfo.InvariantCulture, out var number)
            ? new(number)
            : throw new InputException($"--device {text}: give cpu, cuda or cuda:N");
    }

    /// <summary>Opens the device.</summary>
    /// <param name="threads">Threads of the CPU; all processors where null.</param>
    public Device Open(int? threads) => Gpu is { } number ? new CudaDevice(number) : new CpuDevice(threads);
}
