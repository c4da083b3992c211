// What Google's own libphonenumber says: a number a line in, the number and its time zones out.

import com.google.i18n.phonenumbers.NumberParseException;
import com.google.i18n.phonenumbers.PhoneNumberToTimeZonesMapper;
import com.google.i18n.phonenumbers.PhoneNumberUtil;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.Properties;

public class ZonesOfNumbers {
  private static final String ITS_VERSION = "/META-INF/maven/com.googlecode.libphonenumber/libphonenumber/pom.properties";

  public static void main(String[] arguments) throws IOException, NumberParseException {
    Properties release = new Properties();
    release.load(PhoneNumberUtil.class.getResourceAsStream(ITS_VERSION));
    System.out.println("libphonenumber " + release.getProperty("version"));
    PhoneNumberUtil numbers = PhoneNumberUtil.getInstance();
    PhoneNumberToTimeZonesMapper zones = PhoneNumberToTimeZonesMapper.getInstance();
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      System.out.println(line + "\t" + String.join(" ", zones.getTimeZonesForNumber(numbers.parse(line, "ZZ"))));
    }
  }
}
